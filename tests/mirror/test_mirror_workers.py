"""Several processes in front of one upstream: it sees one of them, and what one knows all know."""

import os
import random
import signal
from collections.abc import Iterator
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.faults.answers import Panel, list_workers
from tests.mirror.asking import (
    ASK_EACH_TIME,
    JSON,
    ask,
    ask_on,
    asked_at_once,
    has_failed,
    is_complete,
    is_kept,
    page_of,
    read,
    read_all,
    url_of,
)
from tests.mirror.conftest import Mirror
from tests.tools.distributions import build_sdist, build_wheel
from tests.tools.mirrored import Mirrored
from tests.tools.program import Program
from tests.tools.server import Server, wait_until

WORKERS = ("--workers", "2")
BIG = build_sdist("demo", "1.0", extra_files={"data.bin": random.Random(0).randbytes(700_000)})
WHEEL = build_wheel("demo", "1.0")
IMPOSTOR = build_wheel("demo", "1.0", description="other bytes")
PAGE = "/simple/demo/"
URL = url_of(BIG)


@pytest.fixture(autouse=True)
def stock(mirrored: Mirrored) -> None:
    mirrored.add("demo", BIG, WHEEL)


@pytest.fixture
def both(mirror: Mirror) -> Iterator[tuple[Server, Panel]]:
    """A server of two processes, and a connection to each of them."""
    server = mirror(*WORKERS)
    with closing(Panel(server)) as panel:
        yield server, panel


def test_one_request_for_a_cold_page(mirror: Mirror, mirrored: Mirrored, both: tuple[Server, Panel]) -> None:
    """Fifty clients, whichever process they reach."""
    server, panel = both
    hanging = mirrored.spoil(PAGE, hang=True)
    with asked_at_once(server, PAGE, 50) as clients:
        for connection in panel.connections.values():
            connection.request("GET", PAGE, headers={"accept": JSON})
        assert hanging.reached.wait(10)
        hanging.release()
        answers = read_all([*clients, *panel.connections.values()])
    assert {answer.status for answer in answers} == {200}
    assert len({answer.body for answer in answers}) == 1
    assert mirrored.count_pages() == 1


def test_one_download_of_a_cold_file(mirror: Mirror, mirrored: Mirrored, both: tuple[Server, Panel]) -> None:
    """Twenty clients, each of whom has its first bytes before the last have come, and the first one leaves."""
    server, panel = both
    fault = mirrored.spoil(f"/files/demo/{BIG.filename}", stall=300_000)
    with asked_at_once(server, URL, 20) as clients:
        first, *others = [*clients, *panel.connections.values()]
        for connection in panel.connections.values():
            connection.request("GET", URL)
        responses = [client.getresponse() for client in others]
        begun = [response.read(1000) for response in responses]
        first.close()
        fault.release()
        bodies = [start + read(response).body for start, response in zip(begun, responses, strict=True)]
    assert bodies == [BIG.content] * 21
    assert mirrored.count_files(BIG) == 1


def test_one_request_for_metadata(mirror: Mirror, mirrored: Mirrored, both: tuple[Server, Panel]) -> None:
    server, panel = both
    assert {answer.status for answer in panel.ask_all(PAGE)} == {200}
    path = f"{url_of(WHEEL)}.metadata"
    with asked_at_once(server, path, 20) as clients:
        assert len({(answer.status, answer.body) for answer in read_all(clients)}) == 1
    assert {answer.status for answer in panel.ask_all(path)} == {200}
    assert mirrored.count(f"/files/demo/{WHEEL.filename}.metadata") <= 2


def test_a_failure_is_told_to_all(mirror: Mirror, mirrored: Mirrored, both: tuple[Server, Panel]) -> None:
    """A crowd at two processes costs a failing upstream two requests at most."""
    server, _ = both
    mirrored.spoil(PAGE, status=500)
    with asked_at_once(server, PAGE, 30) as clients:
        assert all(has_failed(answer) for answer in read_all(clients))
    assert mirrored.count_pages() <= 2


def test_what_one_fetched_all_answer(mirror: Mirror, mirrored: Mirrored, both: tuple[Server, Panel]) -> None:
    """Pages and files, when the upstream has gone."""
    _, panel = both
    one, *others = panel.connections.values()
    assert ask_on(one, PAGE).status == 200
    assert ask_on(one, URL).body == BIG.content
    mirrored.stop()
    for connection in others:
        assert ask_on(connection, PAGE).status == 200
        assert ask_on(connection, URL).body == BIG.content


def test_a_new_page_is_seen_by_all(mirror: Mirror, mirrored: Mirrored, both: tuple[Server, Panel]) -> None:
    """One process asked upstream again: the other's memory must not be older than that."""
    _, panel = both
    assert len({answer.content for answer in panel.ask_all(PAGE)}) == 1
    newer = build_wheel("demo", "2.0")
    mirrored.add("demo", newer)
    one, *_ = panel.connections.values()
    wait_until(lambda: newer.filename in ask_on(one, PAGE, cache_control="no-cache").text, within=20)
    wait_until(lambda: all(newer.filename.encode() in answer.content for answer in panel.ask_all(PAGE)))


def test_a_purge_is_seen_by_all(
    mirror: Mirror, mirrored: Mirrored, both: tuple[Server, Panel], program: Program, packages: Path
) -> None:
    """No process goes on answering from its memory."""
    _, panel = both
    assert {answer.content for answer in panel.ask_all(URL)} == {BIG.content}
    assert {answer.status for answer in panel.ask_all(PAGE)} == {200}
    newer = build_wheel("demo", "2.0")
    mirrored.add("demo", newer)
    assert program.run("cache", "purge").returncode == 0
    assert not is_kept(packages, BIG)
    wait_until(lambda: all(newer.filename.encode() in answer.content for answer in panel.ask_all(PAGE)))
    assert {answer.content for answer in panel.ask_all(URL)} == {BIG.content}
    assert mirrored.count_files(BIG) == 2


def test_first_seen_holds_for_all(mirror: Mirror, mirrored: Mirrored) -> None:
    """What one process saw first another does not accept with other bytes."""
    server = mirror(*WORKERS, config=ASK_EACH_TIME)
    with closing(Panel(server)) as panel:
        one, *others = panel.connections.values()
        assert WHEEL.sha256 in ask_on(one, PAGE).text
        mirrored.add("demo", IMPOSTOR)
        for connection in [*others, one]:
            assert IMPOSTOR.sha256 not in ask_on(connection, PAGE).text
            assert 400 <= ask_on(connection, url_of(IMPOSTOR)).status < 500


def begin(connection: HTTPConnection) -> bytes:
    connection.request("GET", URL)
    return connection.getresponse().read(1000)


def test_a_process_that_dies_while_it_fetches(
    mirror: Mirror, mirrored: Mirrored, both: tuple[Server, Panel], packages: Path
) -> None:
    """Whoever waited for it gets no wrong whole, the next one a right one, and nobody waits for the dead."""
    server, panel = both
    (victim, theirs), (_, others) = panel.connections.items()
    fault = mirrored.spoil(f"/files/demo/{BIG.filename}", stall=300_000)
    assert begin(theirs) == BIG.content[:1000]
    others.request("GET", URL)
    waiting = others.getresponse()
    start = waiting.read(1000)
    assert start == BIG.content[:1000]
    os.kill(victim, signal.SIGKILL)
    mirrored.heal()
    fault.release()
    rest = read(waiting)
    assert rest.is_whole == (start + rest.body == BIG.content)
    wait_until(lambda: len(list_workers(server)) == 2 and victim not in list_workers(server), within=15)
    wait_until(lambda: is_complete(ask(server, URL)), within=30)
    assert ask(server, URL).body == BIG.content
    assert is_kept(packages, BIG)


def test_eviction_by_several_processes(mirror: Mirror, mirrored: Mirrored, packages: Path) -> None:
    """The limit is the cache's, not each process's."""
    files = [build_sdist("many", f"1.{n}", extra_files={"data.bin": BIG.content[n:300_000]}) for n in range(8)]
    mirrored.add("many", *files)
    server = mirror(*WORKERS, "--cache-size", "1MB")
    with ExitStack() as asked:
        clients = [asked.enter_context(asked_at_once(server, url_of(one), 2)) for one in files]
        for one, two in zip(files, clients, strict=True):
            assert [answer.body for answer in read_all(two)] == [one.content] * 2
    wait_until(lambda: sum(is_kept(packages, one) for one in files) == 3, within=10)
    assert page_of(server, "many").status == 200

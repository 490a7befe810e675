"""Files of upstream projects: streamed, fetched once, and never complete unless their hash is right."""

import gzip
import random
import re
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.mirror.asking import (
    OUTAGE,
    Answer,
    ask,
    asked_at_once,
    beginning,
    has_failed,
    is_complete,
    is_kept,
    list_copies,
    list_kept,
    listed,
    page_of,
    read,
    read_all,
    url_of,
)
from tests.mirror.conftest import Mirror
from tests.tools.distributions import Distribution, build_sdist, build_wheel
from tests.tools.mirrored import Mirrored
from tests.tools.server import wait_until

#: Larger than what anybody reads at once.
BYTES = random.Random(0).randbytes(700_000)
BIG = build_sdist("demo", "1.0", extra_files={"data.bin": BYTES})
SIZE = len(BIG.content)
SMALL = build_wheel("demo", "1.0")
URL = url_of(BIG)
ETAG = f'"{BIG.sha256}"'
AT_UPSTREAM = f"/files/demo/{BIG.filename}"


@pytest.fixture(autouse=True)
def stock(mirrored: Mirrored) -> None:
    mirrored.add("demo", BIG, SMALL)


def many_sdists(number: int) -> list[Distribution]:
    return [build_sdist("many", f"1.{n}", extra_files={"data.bin": BYTES[n:200_000]}) for n in range(number)]


def assert_never_wrong(answer: Answer, distribution: Distribution) -> None:
    """Nothing that a client could take for the file: an outage, or a torn answer that does not even hold all of it."""
    assert not is_complete(answer)
    assert answer.status in {0, 200} | OUTAGE
    assert answer.body != distribution.content


def test_a_file_arrives_and_is_kept(mirror: Mirror, mirrored: Mirrored) -> None:
    """Upstream is asked once; what comes from here has the headers of a local file."""
    server = mirror()
    path = listed(server)[BIG.filename]
    cold, warm = ask(server, path), ask(server, path)
    for answer in (cold, warm):
        assert (answer.status, answer.is_whole, answer.body) == (200, True, BIG.content)
        assert answer.headers["content-length"] == str(SIZE)
        assert answer.headers["etag"] == ETAG
        assert answer.headers["accept-ranges"] == "bytes"
        assert answer.headers["content-type"] == "application/gzip"
        assert "immutable" in answer.headers["cache-control"]
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert mirrored.count_files(BIG) == 1


def test_no_page_has_to_be_visited(mirror: Mirror, mirrored: Mirrored) -> None:
    """A URL from a lock file works on a server that knows nothing yet; a made-up hash is unknown."""
    server = mirror()
    assert ask(server, URL).body == BIG.content
    assert ask(server, url_of(SMALL), method="HEAD").status == 200
    for path in ("x/demo-1.0.tar.gz", f"{BIG.sha256}/absent-1.0.tar.gz", f"{BIG.sha256}/", ""):
        assert ask(server, f"/packages/-/{path}").status == 404, path
    assert ask(server, f"/packages/-/{BIG.sha256}/..%2f{BIG.filename}").status == 404
    # Other bytes under a name that is known are refused, where a name that is not is unknown.
    for digest in ("0" * 64, SMALL.sha256):
        assert ask(server, f"/packages/-/{digest}/{BIG.filename}").status in {403, 404}, digest


def test_no_page_and_no_upstream_is_an_outage(mirror: Mirror, mirrored: Mirrored) -> None:
    """A file that cannot be looked up is not unknown."""
    mirrored.stop()
    assert has_failed(ask(mirror(), URL))


def test_the_first_byte_arrives_before_the_last(mirror: Mirror, mirrored: Mirrored) -> None:
    server = mirror()
    fault = mirrored.spoil(AT_UPSTREAM, stall=300_000)
    with beginning(server, URL) as response:
        first = response.read(1000)
        assert fault.reached.wait(10)
        assert first == BIG.content[:1000]
        fault.release()
        rest = read(response)
    assert (rest.is_whole, first + rest.body) == (True, BIG.content)


def test_one_download_for_all(mirror: Mirror, mirrored: Mirrored) -> None:
    """Twenty clients of a cold file, of whom the first one leaves, and some more who come late."""
    server = mirror()
    fault = mirrored.spoil(AT_UPSTREAM, stall=300_000)
    with beginning(server, URL) as first:
        assert first.read(1000) == BIG.content[:1000]
        with asked_at_once(server, URL, 19) as clients:
            responses = [client.getresponse() for client in clients]
            begun = [response.read(1000) for response in responses]
            first.close()
            fault.release()
            bodies = [start + read(response).body for start, response in zip(begun, responses, strict=True)]
    assert bodies == [BIG.content] * 19
    assert ask(server, URL).body == BIG.content
    assert (mirrored.count_files(BIG), mirrored.most_downloads) == (1, 1)


def test_a_client_that_leaves_wastes_nothing(mirror: Mirror, mirrored: Mirrored, packages: Path) -> None:
    """The only one hangs up at the half: the file is fetched to its end and kept."""
    server = mirror()
    fault = mirrored.spoil(AT_UPSTREAM, stall=300_000)
    with beginning(server, URL) as response:
        assert response.read(1000) == BIG.content[:1000]
        assert fault.reached.wait(10)
    fault.release()
    wait_until(lambda: is_kept(packages, BIG), within=10)
    assert ask(server, URL).body == BIG.content
    assert mirrored.count_files(BIG) == 1


def test_a_slow_client_holds_nobody_up(mirror: Mirror, mirrored: Mirrored) -> None:
    """One that reads nothing, beside one that reads all."""
    server = mirror()
    with beginning(server, URL) as sleeping:
        assert ask(server, URL).body == BIG.content
        assert read(sleeping).body == BIG.content


#: What may be done to the bytes of a file.
WRONG: dict[str, Callable[[bytes], bytes]] = {
    "a bit": lambda content: content[:100] + bytes([content[100] ^ 1]) + content[101:],
    "longer": lambda content: content + b"x",
    "shorter": lambda content: content[:-1],
    "empty": lambda content: content[:0],
    "an error page": lambda content: b"<html>out of order</html>" + content[:0],
    "first byte": lambda content: bytes([content[0] ^ 1]) + content[1:],
    "last byte": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
}


@pytest.mark.parametrize("size", (0, 700_000), ids=("small", "big"))
@pytest.mark.parametrize("sizes", (True, False), ids=("size is told", "size is not told"))
def test_wrong_bytes_are_never_complete(
    mirror: Mirror, mirrored: Mirrored, packages: Path, size: int, sizes: bool
) -> None:
    """Neither completed nor kept, whoever asks; the log names the file; the next try is clean."""
    mirrored.look.sizes = sizes
    files = {how: build_sdist("wrong", f"1.{n}", extra_files={"data": BYTES[:size]}) for n, how in enumerate(WRONG)}
    mirrored.add("wrong", *files.values())
    server = mirror()
    for how, file in files.items():
        wrong = WRONG[how](file.content)
        mirrored.spoil(f"/files/wrong/{file.filename}", body=wrong)
        assert_never_wrong(ask(server, url_of(file)), file)
        with asked_at_once(server, url_of(file), 5) as clients:
            for answer in read_all(clients):
                assert_never_wrong(answer, file)
        server.wait_for_log(re.escape(file.filename))
        assert wrong == b"" or Distribution("", wrong).sha256 not in list_kept(packages), how
    mirrored.heal()
    for file in files.values():
        wait_until(lambda: is_complete(ask(server, url_of(file))), within=30)  # noqa: B023 - called at once
        assert ask(server, url_of(file)).body == file.content


def test_a_download_that_breaks_off(mirror: Mirror, mirrored: Mirrored, packages: Path) -> None:
    """What upstream did not send is not sent; nothing half is kept, and the next try is clean."""
    server = mirror()
    mirrored.spoil(AT_UPSTREAM, cut=300_000)
    torn = ask(server, URL)
    assert_never_wrong(torn, BIG)
    assert BIG.content.startswith(torn.body) or torn.status in OUTAGE
    wait_until(lambda: list_copies(packages, BIG) == [], within=10)
    mirrored.heal()
    wait_until(lambda: is_complete(ask(server, URL)), within=30)
    assert ask(server, URL).body == BIG.content


def test_upstream_that_goes_away_in_the_middle(mirror: Mirror, mirrored: Mirrored) -> None:
    server = mirror()
    fault = mirrored.spoil(AT_UPSTREAM, stall=300_000)
    with beginning(server, URL) as response:
        assert fault.reached.wait(10)
        mirrored.stop()
        torn = read(response)
    # Some of it may have been on its way.
    assert torn.is_whole == (torn.body == BIG.content)
    mirrored.start()
    wait_until(lambda: is_complete(ask(server, URL)), within=30)


#: What upstream may say of a file, and what is said here: 404, or 0 for an outage.
SAYINGS: tuple[tuple[dict[str, Any], int], ...] = (
    ({"status": 404}, 404),
    ({"status": 410}, 404),
    ({"status": 401}, 0),
    ({"status": 403}, 0),
    ({"status": 429, "headers": {"Retry-After": "5"}}, 0),
    ({"status": 500}, 0),
    ({"status": 503, "headers": {"Retry-After": "5"}}, 0),
    ({"status": 206}, 0),
    ({"status": 204, "body": b""}, 0),
    ({"cut": -1}, 0),
)


def test_what_upstream_says_of_a_file(mirror: Mirror, mirrored: Mirrored) -> None:
    """404 is 404, everything else an outage with a time to come again; the page stays as it is."""
    files = many_sdists(len(SAYINGS))
    mirrored.add("many", *files)
    server = mirror()
    before = page_of(server, "many").body
    for file, (fault, status) in zip(files, SAYINGS, strict=True):
        mirrored.spoil(f"/files/many/{file.filename}", **fault)
        answer = ask(server, url_of(file))
        assert answer.status == status or (status == 0 and has_failed(answer)), (fault, answer)
    assert page_of(server, "many").body == before
    mirrored.heal()
    for file in files:
        wait_until(lambda: is_complete(ask(server, url_of(file))), within=60)  # noqa: B023 - called at once


def test_upstream_that_hangs_is_an_outage(mirror: Mirror, mirrored: Mirrored) -> None:
    """Before the first byte; others do not wait with it."""
    server = mirror()
    hanging = mirrored.spoil(AT_UPSTREAM, hang=True)
    with asked_at_once(server, URL, 1) as waiting:
        assert hanging.reached.wait(10)
        assert is_complete(ask(server, url_of(SMALL)))
        assert [has_failed(answer) for answer in read_all(waiting)] == [True]


def test_a_coding_that_nobody_asked_for(mirror: Mirror, mirrored: Mirrored) -> None:
    """Bytes that a helpful upstream compressed, or calls so, are not the file."""
    server = mirror()
    mirrored.spoil(AT_UPSTREAM, body=gzip.compress(BIG.content), headers={"Content-Encoding": "gzip"})
    answer = ask(server, URL)
    assert answer.body == BIG.content or not is_complete(answer)
    assert "content-encoding" not in answer.headers


# Ends


def test_a_kill_in_the_middle_leaves_nothing_half(mirror: Mirror, mirrored: Mirrored, packages: Path) -> None:
    """Nor does what was half there come back as a whole."""
    server = mirror()
    fault = mirrored.spoil(AT_UPSTREAM, stall=300_000)
    with beginning(server, URL) as response:
        assert response.read(1000)
        assert fault.reached.wait(10)
        server.kill()
    # The fixture expects a clean end.
    server.process.returncode = 0
    mirrored.heal()
    assert not is_kept(packages, BIG)
    again = mirror()
    for _ in range(2):
        assert ask(again, URL).body == BIG.content
    assert is_kept(packages, BIG)


def test_a_stop_in_the_middle_finishes_what_is_in_flight(mirror: Mirror, mirrored: Mirrored) -> None:
    server = mirror()
    fault = mirrored.spoil(AT_UPSTREAM, stall=300_000)
    with beginning(server, URL) as response:
        first = response.read(1000)
        server.process.send_signal(signal.SIGTERM)
        fault.release()
        assert first + read(response).body == BIG.content
    assert server.stop() == 0


def test_many_cold_files_at_once(mirror: Mirror, mirrored: Mirrored) -> None:
    """As installers ask: side by side, and each is fetched once."""
    sdists = many_sdists(12)
    mirrored.add("many", *sdists)
    server = mirror()
    with ExitStack() as asked:
        clients = [asked.enter_context(asked_at_once(server, url_of(sdist), 3)) for sdist in sdists]
        bodies = [[answer.body for answer in read_all(three)] for three in clients]
    assert bodies == [[sdist.content] * 3 for sdist in sdists]
    assert [mirrored.count_files(sdist, "many") for sdist in sdists] == [1] * 12

"""What was fetched once goes on without the upstream, after a restart, and with `--offline`."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.mirror.asking import (
    ASK_EACH_TIME,
    HTML,
    JSON,
    OUTAGE,
    Answer,
    ask,
    has_failed,
    is_complete,
    listed,
    page_of,
    url_of,
)
from tests.mirror.conftest import Mirror
from tests.tools.distributions import build_sdist, build_wheel
from tests.tools.mirrored import Mirrored
from tests.tools.server import Server, wait_until

WHEEL = build_wheel("demo", "1.0")
SDIST = build_sdist("demo", "1.0")
#: Nobody has asked for it, and it is not the newest, whose metadata the JSON API shows.
COLD = build_wheel("demo", "0.5")
HASHLESS = build_sdist("plain", "1.0")

#: Everything that is asked while the upstream is there: method, path, and more headers.
QUESTIONS: dict[str, tuple[str, str, Mapping[str, str]]] = {
    "page": ("GET", "/simple/demo/", {"accept": JSON}),
    "page of HTML": ("GET", "/simple/demo/", {"accept": HTML}),
    "head of a page": ("HEAD", "/simple/demo/", {"accept": JSON}),
    "page without hashes": ("GET", "/simple/plain/", {"accept": JSON}),
    "wheel": ("GET", url_of(WHEEL), {}),
    "sdist": ("GET", url_of(SDIST), {}),
    "hashless": ("GET", url_of(HASHLESS, is_hashed=False), {}),
    "head of a file": ("HEAD", url_of(WHEEL), {}),
    "part of a file": ("GET", url_of(WHEEL), {"range": "bytes=10-99"}),
    "metadata": ("GET", f"{url_of(WHEEL)}.metadata", {}),
    "JSON API": ("GET", "/pypi/demo/json", {}),
    "JSON API of a version": ("GET", "/pypi/demo/1.0/json", {}),
}


def ask_everything(server: Server) -> dict[str, tuple[int, bytes]]:
    answers: dict[str, Answer] = {
        name: ask(server, path, method=method, **headers) for name, (method, path, headers) in QUESTIONS.items()
    }
    assert all(answer.is_whole for answer in answers.values())
    return {name: (answer.status, without_address(server, answer)) for name, answer in answers.items()}


def without_address(server: Server, answer: Answer) -> bytes:
    """The JSON API has whole URLs, and every server a port of its own."""
    return answer.body.replace(server.url.encode(), b"ROOT")


@pytest.fixture(autouse=True)
def stock(mirrored: Mirrored) -> None:
    mirrored.add("demo", WHEEL, SDIST, COLD)
    mirrored.add("plain", HASHLESS)


@pytest.fixture
def known(mirror: Mirror, mirrored: Mirrored) -> dict[str, tuple[int, bytes]]:
    """What a server answered that has ended since; the upstream is as it was."""
    server = mirror()
    assert page_of(server).status == 200
    mirrored.look.hashes = False
    assert page_of(server, "plain").status == 200
    mirrored.look.hashes = True
    ask_everything(server)
    assert server.stop() == 0
    # By now it is known what the bytes of the file without a hash are, and the page says so.
    server = mirror()
    answers = ask_everything(server)
    assert {status for status, _ in answers.values()} == {200, 206}
    assert server.stop() == 0
    mirrored.requests.clear()
    return answers


def test_without_the_upstream(mirror: Mirror, mirrored: Mirrored, known: dict[str, tuple[int, bytes]]) -> None:
    """While it is down, and after another restart: everything as before, also what is stale by now."""
    mirrored.stop()
    for _ in range(2):
        server = mirror(config=ASK_EACH_TIME)
        for _ in range(2):
            assert ask_everything(server) == known
        server.stop()


def test_with_a_failing_upstream(mirror: Mirror, mirrored: Mirrored, known: dict[str, tuple[int, bytes]]) -> None:
    mirrored.spoil("*", status=500)
    assert ask_everything(mirror(config=ASK_EACH_TIME)) == known


def test_with_a_hanging_upstream(mirror: Mirror, mirrored: Mirrored, known: dict[str, tuple[int, bytes]]) -> None:
    """Everything is answered before the upstream has said a word."""
    hanging = mirrored.spoil("*", hang=True)
    assert ask_everything(mirror(config=ASK_EACH_TIME)) == known
    hanging.release()


def test_offline(mirror: Mirror, mirrored: Mirrored, known: dict[str, tuple[int, bytes]]) -> None:
    """The upstream is there, and is not asked, whoever asks for what; pages list what is here, so that it installs."""
    server = mirror("--offline", config=ASK_EACH_TIME)
    files = ("wheel", "sdist", "hashless", "head of a file", "part of a file", "metadata")
    for _ in range(2):
        answers = ask_everything(server)
        assert {name: answers[name] for name in files} == {name: known[name] for name in files}
        assert {status for status, _ in answers.values()} == {200, 206}
        assert listed(server).keys() == {WHEEL.filename, SDIST.filename}
        assert listed(server, "plain").keys() == {HASHLESS.filename}
    assert page_of(server, cache_control="no-cache").status == 200
    for path in ("/simple/absent/", url_of(COLD), f"{url_of(COLD)}.metadata", "/pypi/absent/json"):
        assert ask(server, path).status in {403, 404} | OUTAGE, path
    assert ask(server, "/health").body == b"Ok"
    assert mirrored.requests == []


def test_online_again(mirror: Mirror, mirrored: Mirrored, known: dict[str, tuple[int, bytes]]) -> None:
    mirror("--offline").stop()
    server = mirror()
    assert ask_everything(server) == known
    assert mirrored.requests == [], "freshness and files survive restarts"
    assert ask(server, url_of(COLD)).body == COLD.content


def test_what_is_not_here_is_an_outage(mirror: Mirror, mirrored: Mirrored, known: dict[str, tuple[int, bytes]]) -> None:
    """A file on a known page is not unknown because its upstream is down."""
    mirrored.stop()
    server = mirror()
    for path in (url_of(COLD), f"{url_of(COLD)}.metadata", "/simple/absent/"):
        assert has_failed(ask(server, path)), path
    mirrored.start()
    wait_until(lambda: is_complete(ask(server, url_of(COLD))), within=60)


def test_a_server_starts_without_its_upstream(mirror: Mirror, mirrored: Mirrored, packages: Path) -> None:
    """Local projects are served as ever."""
    mirrored.stop()
    local = build_wheel("local", "1.0")
    local.write(packages)
    server = mirror()
    assert page_of(server, "local").status == 200
    assert ask(server, f"/packages/{local.filename}").body == local.content


def test_a_cache_that_was_deleted(mirror: Mirror, mirrored: Mirrored, packages: Path, known: object) -> None:
    """It is made anew; nothing but time is lost."""
    shutil.rmtree(packages / ".pypiserver-ng" / "cache")
    server = mirror()
    assert ask(server, url_of(WHEEL)).body == WHEEL.content
    assert page_of(server).status == 200


def test_damaged_copies_are_not_given_out(
    mirror: Mirror, mirrored: Mirrored, packages: Path, known: dict[str, tuple[int, bytes]]
) -> None:
    """Pages, metadata and notes that the disk spoilt are fetched again; a start does not fail by them."""
    files = {one.content for one in (WHEEL, SDIST, HASHLESS)}
    for path in (packages / ".pypiserver-ng" / "cache").rglob("*"):
        if path.is_file() and path.read_bytes() not in files:
            path.write_bytes(b"\x00damaged")
    server = mirror()
    for name in ("page", "page of HTML", "wheel", "metadata", "JSON API"):
        _, path_asked, headers = QUESTIONS[name]
        answer = ask(server, path_asked, **headers)
        assert (answer.status, without_address(server, answer)) == known[name], name


def test_a_file_that_was_cut_short(mirror: Mirror, mirrored: Mirrored, packages: Path, known: object) -> None:
    """By a full disk or a power cut: half a file is not given out as a whole one for a year, but fetched again."""
    for path in (packages / ".pypiserver-ng" / "cache").rglob("*"):
        if path.is_file() and path.read_bytes() == WHEEL.content:
            path.write_bytes(WHEEL.content[:100])
    server = mirror()
    wait_until(lambda: ask(server, url_of(WHEEL)).body == WHEEL.content, within=30)

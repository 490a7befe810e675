"""Core metadata of upstream wheels: passed on and verified, kept, or made from the wheel's last bytes."""

import hashlib
import random
from pathlib import Path

import pytest

from tests.mirror.asking import (
    HTML,
    ask,
    asked_at_once,
    has_failed,
    is_complete,
    page_of,
    read_all,
    url_of,
)
from tests.mirror.conftest import Mirror
from tests.mirror.listings import core_metadata_of
from tests.tools.distributions import build_sdist, build_wheel
from tests.tools.mirrored import Mirrored
from tests.tools.server import wait_until

#: Its METADATA lies behind more than anybody would fetch for it.
BIG = build_wheel(
    "demo", "1.0", requires=["other>=1"], extra_files={"demo/data.bin": random.Random(0).randbytes(700_000)}
)
SMALL = build_wheel("demo", "2.0")
SDIST = build_sdist("demo", "1.0")
METADATA = core_metadata_of(BIG) or b""
SHA256 = hashlib.sha256(METADATA).hexdigest()
URL = f"{url_of(BIG)}.metadata"
WHEEL_AT_UPSTREAM = f"/files/demo/{BIG.filename}"
AT_UPSTREAM = f"{WHEEL_AT_UPSTREAM}.metadata"


@pytest.fixture(autouse=True)
def stock(mirrored: Mirrored) -> None:
    mirrored.add("demo", BIG, SMALL, SDIST)


def announced(page: str) -> bool:
    """Whether an HTML page says that the wheel has core metadata, and where it says it, under both names."""
    lines = [line for line in page.splitlines() if f">{BIG.filename}<" in line]
    assert len(lines) == 1, page
    return "data-core-metadata=" in lines[0]


def test_metadata_are_passed_on_and_kept(mirror: Mirror, mirrored: Mirrored) -> None:
    """The page gives upstream's hash; one request to upstream, and none for the wheel."""
    server = mirror()
    page = page_of(server)
    entries = {file["filename"]: file["core-metadata"] for file in page.json["files"]}
    assert (entries[BIG.filename], entries[SDIST.filename]) == ({"sha256": SHA256}, False)
    assert announced(page_of(server, accept=HTML).text)
    for _ in range(3):
        answer = ask(server, URL)
        assert (answer.status, answer.is_whole, answer.body) == (200, True, METADATA)
        assert "immutable" in answer.headers["cache-control"]
    assert ask(server, URL, if_none_match=answer.headers["etag"]).status == 304
    assert (mirrored.count(AT_UPSTREAM), mirrored.count_files(BIG)) == (1, 0)


def test_no_page_has_to_be_visited(mirror: Mirror, mirrored: Mirrored) -> None:
    assert ask(mirror(), URL).body == METADATA


def test_head(mirror: Mirror, mirrored: Mirrored) -> None:
    """Cold and warm, with the length."""
    server = mirror()
    for _ in range(2):
        answer = ask(server, URL, method="HEAD")
        assert (answer.status, answer.headers["content-length"], answer.body) == (200, str(len(METADATA)), b"")
        assert ask(server, URL).body == METADATA


def test_many_at_once_are_one_request(mirror: Mirror, mirrored: Mirrored) -> None:
    server = mirror()
    assert page_of(server).status == 200
    hanging = mirrored.spoil(AT_UPSTREAM, hang=True)
    with asked_at_once(server, URL, 20) as clients:
        assert hanging.reached.wait(10)
        hanging.release()
        assert {answer.body for answer in read_all(clients)} == {METADATA}
    assert mirrored.count(AT_UPSTREAM) == 1


@pytest.mark.parametrize("body", (b"", METADATA[:-1], METADATA + b"\n", b"Name: demo\nVersion: 1.0\n"))
def test_wrong_metadata_are_never_given(mirror: Mirror, mirrored: Mirrored, body: bytes) -> None:
    """Whoever falsifies them could choose a project's dependencies; the right ones or an outage are answered."""
    server = mirror()
    mirrored.spoil("*.metadata", body=body)
    for _ in range(2):
        answer = ask(server, URL)
        assert answer.body == METADATA or has_failed(answer), answer
    mirrored.heal()
    wait_until(lambda: is_complete(ask(server, URL)), within=60)
    assert ask(server, URL).body == METADATA


@pytest.mark.parametrize("fault", ({"status": 500}, {"status": 404}, {"cut": 10}, {"cut": -1}), ids=str)
def test_upstream_breaks_its_promise(mirror: Mirror, mirrored: Mirrored, fault: dict[str, int]) -> None:
    """It announced metadata and does not give them: the wheel has them too, or it is an outage; never 404."""
    server = mirror()
    mirrored.spoil("*.metadata", **fault)
    answer = ask(server, URL)
    assert answer.body == METADATA or has_failed(answer), answer


@pytest.mark.parametrize("as_json", (True, False), ids=("json", "html"))
def test_metadata_without_a_hash(mirror: Mirror, mirrored: Mirrored, as_json: bool) -> None:
    """Announced by `true`: there is nothing to verify them by but the wheel itself."""
    mirrored.look.metadata_hashes = False
    mirrored.look.as_json = as_json
    server = mirror()
    assert announced(page_of(server, accept=HTML).text)
    assert ask(server, URL).body == METADATA


@pytest.mark.parametrize("as_json", (True, False), ids=("json", "html"))
def test_metadata_are_made_from_the_wheel(mirror: Mirror, mirrored: Mirrored, packages: Path, as_json: bool) -> None:
    """Where upstream has none: from a few parts of the wheel, and kept."""
    mirrored.look.metadata = False
    mirrored.look.as_json = as_json
    server = mirror()
    assert page_of(server).status == 200
    for _ in range(3):
        answer = ask(server, URL)
        assert (answer.status, answer.body) == (200, METADATA)
    assert 0 < mirrored.sent[WHEEL_AT_UPSTREAM] < 100_000
    asked = mirrored.count_files(BIG)
    server.stop()
    assert ask(mirror(), URL).body == METADATA
    assert mirrored.count_files(BIG) == asked


def test_made_metadata_are_announced(mirror: Mirror, mirrored: Mirrored) -> None:
    """Else no installer would ask for them, and each would fetch parts of the wheel for itself."""
    mirrored.look.metadata = False
    server = mirror()
    assert announced(page_of(server, accept=HTML).text)
    entries = {file["filename"]: file["core-metadata"] for file in page_of(server).json["files"]}
    assert entries[BIG.filename]
    assert not entries[SDIST.filename]


def test_metadata_of_a_wheel_without_a_hash(mirror: Mirror, mirrored: Mirrored) -> None:
    mirrored.look.metadata = mirrored.look.hashes = False
    url = url_of(BIG, is_hashed=False)
    assert ask(mirror(), f"{url}.metadata").body == METADATA


def test_an_upstream_without_parts(mirror: Mirror, mirrored: Mirrored) -> None:
    """Then the wheel is fetched as a whole, once, and serves for both."""
    mirrored.look.metadata = mirrored.ranges = False
    server = mirror()
    assert ask(server, URL).body == METADATA
    assert ask(server, url_of(BIG)).body == BIG.content
    # An upstream that ignores Range sends some of the wheel before that is noticed.
    assert mirrored.sent[WHEEL_AT_UPSTREAM] < 2.5 * len(BIG.content)


def test_a_kept_wheel_is_enough(mirror: Mirror, mirrored: Mirrored) -> None:
    """Its metadata need no upstream any more."""
    mirrored.look.metadata = False
    server = mirror()
    assert ask(server, url_of(BIG)).body == BIG.content
    mirrored.stop()
    assert ask(server, URL).body == METADATA


def test_what_has_no_metadata(mirror: Mirror, mirrored: Mirrored) -> None:
    """An sdist, a wheel that is none, and a name that nobody knows."""
    mirrored.look.metadata = False
    server = mirror()
    assert ask(server, f"{url_of(SDIST)}.metadata").status == 404
    assert ask(server, f"/packages/-/{'0' * 64}/{BIG.filename}.metadata").status in {403, 404}
    assert ask(server, f"{URL}.metadata").status == 404
    mirrored.spoil(WHEEL_AT_UPSTREAM, body=b"PK\x03\x04 not a wheel")
    answer = ask(server, URL)
    assert not is_complete(answer)
    assert ask(server, "/health").body == b"Ok"

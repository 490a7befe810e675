"""Parts of upstream files, conditions, HEAD, and files that are no longer what they were."""

import random

import pytest

from tests.mirror.asking import ASK_EACH_TIME, ask, is_complete, listed, page_of, url_of
from tests.mirror.conftest import Mirror
from tests.tools.distributions import Distribution, build_sdist, build_wheel
from tests.tools.mirrored import Mirrored
from tests.tools.server import wait_until

#: Larger than what anybody reads at once.
BIG = build_sdist("demo", "1.0", extra_files={"data.bin": random.Random(0).randbytes(700_000)})
SIZE = len(BIG.content)
SMALL = build_wheel("demo", "1.0")
#: The name of SMALL with other bytes.
IMPOSTOR = build_wheel("demo", "1.0", description="other bytes")
URL = url_of(BIG)
ETAG = f'"{BIG.sha256}"'
AT_UPSTREAM = f"/files/demo/{BIG.filename}"


@pytest.fixture(autouse=True)
def stock(mirrored: Mirrored) -> None:
    mirrored.add("demo", BIG, SMALL)


#: Range and the part that it names.
PARTS = {
    "bytes=0-99": (0, 100),
    "bytes=-100": (SIZE - 100, SIZE),
    "bytes=350000-350099": (350_000, 350_100),
    f"bytes={SIZE - 1}-": (SIZE - 1, SIZE),
    "bytes=0-": (0, SIZE),
}


@pytest.mark.parametrize(
    ("hashes", "ranges"), ((True, True), (True, False), (False, True)), ids=("hashed", "upstream without", "hashless")
)
def test_parts_of_a_file(mirror: Mirror, mirrored: Mirrored, hashes: bool, ranges: bool) -> None:
    """Cold, warm, and with an upstream that sends no parts: exactly what was asked for."""
    mirrored.look.hashes, mirrored.ranges = hashes, ranges
    server = mirror()
    for number, (asked, (first, end)) in enumerate(PARTS.items()):
        file = Distribution(f"parts_{number}-1.0.tar.gz", number.to_bytes() + BIG.content[1:])
        mirrored.add(f"parts-{number}", file)
        for _ in range(2):
            answer = ask(server, url_of(file, is_hashed=hashes), range=asked)
            assert (answer.status, answer.headers["content-range"]) == (206, f"bytes {first}-{end - 1}/{SIZE}"), asked
            assert (answer.is_whole, answer.body) == (True, file.content[first:end]), asked
            assert ask(server, url_of(file, is_hashed=hashes)).body == file.content


def test_parts_outside_the_file(mirror: Mirror, mirrored: Mirrored) -> None:
    server = mirror()
    for _ in range(2):
        answer = ask(server, URL, range=f"bytes={SIZE}-")
        assert (answer.status, answer.headers["content-range"]) == (416, f"bytes */{SIZE}")
        assert is_complete(ask(server, URL))


@pytest.mark.parametrize(("condition", "status"), ((ETAG, 206), ('"other"', 200), (f"W/{ETAG}", 200)))
def test_resumed_downloads(mirror: Mirror, mirrored: Mirrored, condition: str, status: int) -> None:
    """A part only of the file that the client has the beginning of."""
    server = mirror()
    for _ in range(2):
        answer = ask(server, URL, range="bytes=1000-", if_range=condition)
        assert (answer.status, answer.body) == (status, BIG.content[1000 if status == 206 else 0 :])


@pytest.mark.parametrize("method", ("GET", "HEAD"))
def test_what_the_client_has_is_not_fetched(mirror: Mirror, mirrored: Mirrored, method: str) -> None:
    """The hash is in the URL: nobody needs the bytes to say 304."""
    server = mirror()
    for tags in (ETAG, f'"x", {ETAG}', "*"):
        answer = ask(server, URL, method=method, if_none_match=tags)
        assert (answer.status, answer.body) == (304, b"")
    assert mirrored.sent[AT_UPSTREAM] == 0
    assert ask(server, URL, if_none_match='"other"').body == BIG.content
    assert ask(server, URL, if_none_match=ETAG).status == 304


@pytest.mark.parametrize(
    "poverty",
    ({}, {"sizes": False}, {"sizes": False, "hashes": False}, {"as_json": False}),
    ids=str,
)
def test_head_costs_no_download(mirror: Mirror, mirrored: Mirrored, poverty: dict[str, bool]) -> None:
    """The length and that parts may be asked for, also where the page does not tell the size."""
    for name, value in poverty.items():
        setattr(mirrored.look, name, value)
    server = mirror()
    url = url_of(BIG, is_hashed=mirrored.look.hashes)
    answer = ask(server, url, method="HEAD")
    assert (answer.status, answer.headers["content-length"], answer.body) == (200, str(SIZE), b"")
    assert answer.headers["accept-ranges"] == "bytes"
    assert mirrored.sent[AT_UPSTREAM] == 0
    assert ask(server, url).body == BIG.content
    assert ask(server, url, method="HEAD").headers["content-length"] == str(SIZE)


# First seen


@pytest.mark.parametrize("is_downloaded", (True, False), ids=("downloaded", "listed"))
def test_other_bytes_under_a_used_name(mirror: Mirror, mirrored: Mirrored, is_downloaded: bool) -> None:
    """An upstream that swaps a file is refused and named in the log, after a restart too."""
    server = mirror(config=ASK_EACH_TIME)
    assert SMALL.filename in listed(server)
    if is_downloaded:
        assert ask(server, url_of(SMALL)).body == SMALL.content
    mirrored.add("demo", IMPOSTOR)
    assert page_of(server).status == 200
    server.wait_for_log(SMALL.filename)
    for _ in range(2):
        page = page_of(server)
        assert (page.status, IMPOSTOR.sha256 in page.text) == (200, False)
        assert BIG.filename in page.text
        refused = ask(server, url_of(IMPOSTOR))
        assert 400 <= refused.status < 500
        assert ask(server, url_of(IMPOSTOR), method="HEAD").status == refused.status
        assert ask(server, f"{url_of(IMPOSTOR)}.metadata").status == refused.status
        kept = ask(server, url_of(SMALL))
        assert (kept.body == SMALL.content) if is_downloaded else not is_complete(kept)
        server.stop()
        server = mirror(config=ASK_EACH_TIME)


def test_a_file_without_a_hash(mirror: Mirror, mirrored: Mirrored) -> None:
    """It has a URL of its own kind, is fetched once, and is from then on what it was."""
    mirrored.look.hashes = False
    server = mirror(config=ASK_EACH_TIME)
    url = url_of(SMALL, is_hashed=False)
    assert listed(server)[SMALL.filename] == url
    cold = ask(server, url)
    assert (cold.status, cold.is_whole, cold.body) == (200, True, SMALL.content)
    assert ask(server, url).body == SMALL.content
    assert mirrored.count_files(SMALL) == 1
    mirrored.add("demo", IMPOSTOR)
    assert page_of(server).status == 200
    assert ask(server, url).body == SMALL.content


def test_a_hash_that_is_known_by_now(mirror: Mirror, mirrored: Mirrored) -> None:
    """A page says at once what is known of such a file, or never: no restart changes it, nor another process."""
    mirrored.look.hashes = False
    server = mirror()
    assert page_of(server).status == 200
    assert is_complete(ask(server, url_of(SMALL, is_hashed=False)))
    known = page_of(server).body
    server.stop()
    assert page_of(mirror()).body == known


def test_a_torn_file_without_a_hash(mirror: Mirror, mirrored: Mirrored) -> None:
    """There is no hash to find it out by, so the length has to do."""
    mirrored.look.hashes = False
    server = mirror()
    mirrored.spoil(AT_UPSTREAM, cut=300_000)
    assert not is_complete(ask(server, url_of(BIG, is_hashed=False)))
    mirrored.heal()
    wait_until(lambda: is_complete(ask(server, url_of(BIG, is_hashed=False))), within=30)

"""The size of the cache: what was not used for longest goes first, local files never, and nothing breaks by it."""

import random
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.mirror.asking import ask, connect, is_complete, is_kept, list_kept, listed, page_of, read, url_of
from tests.mirror.conftest import Mirror
from tests.tools.distributions import Distribution, build_sdist, build_wheel
from tests.tools.mirrored import Mirrored
from tests.tools.program import Program
from tests.tools.server import wait_until

BYTES = random.Random(0).randbytes(300_000)
#: About 300 kB each.
FILES = [build_sdist("demo", f"1.{n}", extra_files={"data.bin": BYTES[n:]}) for n in range(6)]
LIMIT = ("--cache-size", "1MB")


@pytest.fixture(autouse=True)
def stock(mirrored: Mirrored) -> None:
    mirrored.add("demo", *FILES)


def kept(packages: Path) -> list[int]:
    """The numbers of the files that are in the cache."""
    digests = list_kept(packages)
    return [number for number, file in enumerate(FILES) if file.sha256 in digests]


def test_without_a_limit_everything_is_kept(mirror: Mirror, mirrored: Mirrored, packages: Path) -> None:
    server = mirror()
    for file in FILES:
        assert is_complete(ask(server, url_of(file)))
    assert kept(packages) == [0, 1, 2, 3, 4, 5]


def test_what_was_not_used_for_longest_goes_first(mirror: Mirror, mirrored: Mirrored, packages: Path) -> None:
    """A file that is asked for again is young again; what has gone is fetched again."""
    server = mirror(*LIMIT)
    for number in (0, 1, 2):
        assert ask(server, url_of(FILES[number])).body == FILES[number].content
    assert ask(server, url_of(FILES[0])).body == FILES[0].content
    assert ask(server, url_of(FILES[3])).body == FILES[3].content
    wait_until(lambda: kept(packages) == [0, 2, 3], within=10)
    assert mirrored.count_files(FILES[1]) == 1
    assert ask(server, url_of(FILES[1])).body == FILES[1].content
    assert mirrored.count_files(FILES[1]) == 2
    wait_until(lambda: kept(packages) == [0, 1, 3], within=10)


def test_use_is_remembered_after_a_restart(mirror: Mirror, mirrored: Mirrored, packages: Path) -> None:
    """And a smaller limit holds from the start on, or from the next file on."""
    first = mirror()
    for number in (0, 1, 2, 0):
        assert is_complete(ask(first, url_of(FILES[number])))
    first.stop()
    second = mirror(*LIMIT)
    assert is_complete(ask(second, url_of(FILES[3])))
    wait_until(lambda: kept(packages) == [0, 2, 3], within=10)
    second.stop()
    third = mirror("--cache-size", "700KB")
    assert is_complete(ask(third, url_of(FILES[3])))
    assert is_complete(ask(third, url_of(FILES[4])))
    wait_until(lambda: kept(packages) == [3, 4], within=10)


def test_local_files_do_not_count(mirror: Mirror, mirrored: Mirrored, packages: Path) -> None:
    """However large they are, and whatever else is evicted, they stay."""
    local = [build_sdist("local", f"1.{n}", extra_files={"data.bin": BYTES[n:]}) for n in range(5)]
    for one in local:
        one.write(packages)
    server = mirror(*LIMIT)
    for file in FILES:
        assert ask(server, url_of(file)).body == file.content
    wait_until(lambda: kept(packages) == [3, 4, 5], within=10)
    assert sorted(listed(server, "local")) == sorted(one.filename for one in local)
    assert [ask(server, f"/packages/{one.filename}").body for one in local] == [one.content for one in local]


def test_a_file_larger_than_the_cache(mirror: Mirror, mirrored: Mirrored, packages: Path) -> None:
    """It is served, and makes room for the next one at the latest."""
    server = mirror("--cache-size", "100KB")
    for file in FILES[:2]:
        assert ask(server, url_of(file)).body == file.content
    wait_until(lambda: 0 not in kept(packages), within=10)


def test_what_never_fits_pushes_nothing_out(mirror: Mirror, mirrored: Mirrored, packages: Path) -> None:
    """One large file, and all the small ones are still here."""
    small = build_wheel("demo", "2.0")
    mirrored.add("demo", small)
    server = mirror("--cache-size", "100KB")
    for file in (small, *FILES[:2]):
        assert is_complete(ask(server, url_of(file)))
    assert is_kept(packages, small)


def test_a_file_that_is_being_served_survives(mirror: Mirror, mirrored: Mirrored, packages: Path) -> None:
    """A slow client gets it to the end, though it has been evicted meanwhile or the cache was purged."""
    large = build_sdist("demo", "9.0", extra_files={"data.bin": random.Random(1).randbytes(16_000_000)})
    mirrored.add("demo", large)
    server = mirror("--cache-size", "17MB")
    assert ask(server, url_of(large)).body == large.content
    connection = connect(server)
    parts = urlsplit(server.url)
    connection.sock = socket.socket()
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.sock.settimeout(60)
    connection.sock.connect((parts.hostname, parts.port))
    connection.request("GET", url_of(large))
    response = connection.getresponse()
    start = response.read(1000)
    for file in FILES:
        assert is_complete(ask(server, url_of(file)))
    answer = read(response)
    connection.close()
    assert answer.is_whole
    assert start + answer.body == large.content


def test_metadata_and_pages_are_not_lost_with_files(mirror: Mirror, mirrored: Mirrored, packages: Path) -> None:
    """What an installer resolves with costs no second request while files come and go."""
    wheel = build_wheel("demo", "2.0", extra_files={"demo/data.bin": BYTES})
    mirrored.add("demo", wheel)
    server = mirror(*LIMIT)
    for file in (wheel, *FILES):
        assert is_complete(ask(server, url_of(file)))
    assert page_of(server).status == 200
    assert mirrored.count_pages() == 1
    wait_until(lambda: not is_kept(packages, wheel), within=10)
    assert is_complete(ask(server, f"{url_of(wheel)}.metadata"))


def test_first_seen_bytes_outlive_eviction(mirror: Mirror, mirrored: Mirrored, packages: Path) -> None:
    """A file without a hash that has gone from here must come back as it was, or not at all."""
    mirrored.look.hashes = False
    server = mirror("--cache-size", "400KB")
    url = url_of(FILES[0], is_hashed=False)
    assert ask(server, url).body == FILES[0].content
    assert is_complete(ask(server, url_of(FILES[1], is_hashed=False)))
    wait_until(lambda: kept(packages) == [1], within=10)
    swapped = Distribution(FILES[0].filename, FILES[2].content)
    mirrored.spoil(f"/files/demo/{FILES[0].filename}", body=swapped.content)
    for _ in range(2):
        assert not is_complete(ask(server, url))
    server.wait_for_log(FILES[0].filename)
    mirrored.heal()
    wait_until(lambda: ask(server, url).body == FILES[0].content, within=60)


# Commands


def test_what_is_in_the_cache(mirror: Mirror, mirrored: Mirrored, packages: Path, program: Program) -> None:
    """Beside a running server."""
    server = mirror()
    for file in FILES[:2]:
        assert is_complete(ask(server, url_of(file)))
    done = program.run("cache", "list")
    assert (done.returncode, done.stderr) == (0, "")
    assert all(file.filename in done.stdout for file in FILES[:2])
    assert FILES[2].filename not in done.stdout
    info = program.run("cache", "info")
    assert (info.returncode, info.stderr) == (0, "")
    assert "2" in info.stdout


def test_purging(mirror: Mirror, mirrored: Mirrored, packages: Path, program: Program) -> None:
    """Everything that came from elsewhere, within a second, and nothing else; URLs work as before."""
    local = build_wheel("local", "1.0")
    local.write(packages)
    server = mirror()
    for file in FILES[:2]:
        assert is_complete(ask(server, url_of(file)))
    assert program.run("cache", "purge").returncode == 0
    assert kept(packages) == []
    assert ask(server, url_of(FILES[0])).body == FILES[0].content
    assert mirrored.count_files(FILES[0]) == 2
    wait_until(lambda: page_of(server).status == 200 and mirrored.count_pages() >= 2)
    assert ask(server, f"/packages/{local.filename}").body == local.content
    assert program.run("cache", "purge").returncode == 0


def test_removing_one_project(mirror: Mirror, mirrored: Mirrored, packages: Path, program: Program) -> None:
    other = build_wheel("other", "1.0")
    mirrored.add("other", other)
    server = mirror()
    for file in (FILES[0], other):
        assert is_complete(ask(server, url_of(file)))
    assert program.run("cache", "remove", "other").returncode == 0
    assert not is_kept(packages, other)
    assert kept(packages) == [0]
    assert ask(server, url_of(other)).body == other.content
    assert (mirrored.count_files(other, "other"), mirrored.count_files(FILES[0])) == (2, 1)

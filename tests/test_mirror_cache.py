"""The cache on its own: one fetches and others follow, what is left over goes, and what was not used for longest."""

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pypiserver_ng.model import NormalizedName
from pypiserver_ng.storage import Cache
from pypiserver_ng.storage.cache import Usage

DEMO = NormalizedName("demo")
KEY = "e" * 64
CONTENT = b"x" * 100
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NAME = "demo-1.0.tar.gz"

Open = Callable[[int | None], Cache]


@pytest.fixture
def open_cache(tmp_path: Path) -> Iterator[Open]:
    """Opens the same cache again and again, as several processes do."""
    opened: list[Cache] = []

    def open_it(limit: int | None) -> Cache:
        opened.append(Cache(tmp_path, limit))
        return opened[-1]

    yield open_it
    for cache in opened:
        cache.close()


@pytest.fixture
def cache(open_cache: Open) -> Cache:
    return open_cache(None)


def keep(cache: Cache, letter: str, size: int = 100) -> str:
    """Publish a file of so many bytes, used later than all before; returns its filename."""
    filename = f"{letter}-1.0.tar.gz"
    with closing(cache.begin(letter * 64)) as partial:
        os.write(partial.fd, letter.encode() * size)
        cache.publish(partial, letter * 64, filename)
    return filename


def age(cache: Cache, filename: str, seconds: int) -> None:
    """It was last used so long ago."""
    [kept] = [kept for kept in cache.files() if kept.filename == filename]
    moment = time.time() - seconds
    # Written long before: else some file systems would count a reading by themselves.
    os.utime(kept.path, (moment, 1))


def names(cache: Cache) -> list[str]:
    return [kept.filename for kept in cache.files()]


# Fetching


def test_one_fetches_and_others_follow(cache: Cache, open_cache: Open) -> None:
    """Who follows reads what comes, and knows when it is over and under which name it goes on."""
    other = open_cache(None)
    with closing(cache.begin(KEY)) as ours, closing(other.begin(KEY)) as theirs:
        assert (ours.is_ours, theirs.is_ours, theirs.is_over()) == (True, False, False)
        os.write(ours.fd, CONTENT)
        assert os.pread(theirs.fd, 1000, 0) == CONTENT
        assert (theirs.has_moved(), other.is_published(theirs, SHA256, NAME)) == (False, False)
        assert not other.has_file(SHA256, NAME)
        cache.publish(ours, SHA256, NAME)
        assert (theirs.is_over(), theirs.has_moved()) == (True, True)
        assert other.is_published(theirs, SHA256, NAME)
        assert not other.is_published(theirs, SHA256, "other-1.0.tar.gz")
    fd = other.open_file(SHA256, NAME, len(CONTENT))
    assert fd is not None
    assert os.pread(fd, 1000, 0) == CONTENT
    os.close(fd)


def test_what_was_given_up_has_not_moved(cache: Cache, open_cache: Open) -> None:
    """Nor is it taken for what somebody else begins under the same key."""
    other = open_cache(None)
    ours, theirs = cache.begin(KEY), other.begin(KEY)
    ours.give_up()
    ours.close()
    with closing(theirs), closing(cache.begin(KEY)) as again:
        assert again.is_ours
        assert (theirs.is_over(), theirs.has_moved()) == (True, False)
        again.give_up()


def test_nobody_follows_the_dead(cache: Cache, tmp_path: Path) -> None:
    """Their lock is gone, and half of their bytes are nobody's."""
    dead = cache.begin(KEY)
    os.write(dead.fd, b"half")
    dead.close()
    with closing(cache.begin(KEY)) as ours:
        assert ours.is_ours
        assert os.fstat(ours.fd).st_size == 0
        ours.give_up()
    assert list((tmp_path / "cache" / "partial").iterdir()) == []


def test_left_overs_are_swept(cache: Cache, open_cache: Open, tmp_path: Path) -> None:
    """What is old and locked by nobody, when a process starts and later on."""
    partial = tmp_path / "cache" / "partial"
    old, new = partial / "old", partial / "new"
    with closing(cache.begin("fetched")) as fetched:
        for sweep in (lambda: open_cache(None), cache.tidy):
            for path in (old, new):
                path.write_bytes(b"half")
            for path in (old, fetched.path):
                os.utime(path, (1, 1))
            sweep()
            assert {path.name for path in partial.iterdir()} == {"new", "fetched"}
        fetched.give_up()


def test_a_file_that_the_disk_spoilt(cache: Cache) -> None:
    """One of another size is as good as not here; where the page lied of the size, it stays."""
    with closing(cache.begin(KEY)) as partial:
        os.write(partial.fd, CONTENT)
        cache.publish(partial, SHA256, NAME)
    fd = cache.open_file(SHA256, NAME, 7)
    assert fd is not None
    os.close(fd)
    [kept] = cache.files()
    kept.path.write_bytes(b"spoilt")
    assert cache.open_file(SHA256, NAME, len(CONTENT)) is None
    assert not cache.has_file(SHA256, NAME)


# Room


def test_what_was_not_used_for_longest_goes_first(open_cache: Open) -> None:
    """Whatever came first: reading a file is using it."""
    cache = open_cache(300)
    for seconds, letter in ((300, "a"), (200, "b"), (100, "c")):
        age(cache, keep(cache, letter), seconds)
    fd = cache.open_file("a" * 64, "a-1.0.tar.gz", 100)
    assert fd is not None
    os.close(fd)
    keep(cache, "d")
    assert sorted(names(cache)) == ["a-1.0.tar.gz", "c-1.0.tar.gz", "d-1.0.tar.gz"]
    keep(cache, "e", 200)
    assert sorted(names(cache)) == ["d-1.0.tar.gz", "e-1.0.tar.gz"]


def test_what_is_being_sent_stays(open_cache: Open) -> None:
    cache = open_cache(100)
    age(cache, keep(cache, "a"), 300)
    fd = cache.open_file("a" * 64, "a-1.0.tar.gz")
    assert fd is not None
    age(cache, "a-1.0.tar.gz", 300)
    age(cache, keep(cache, "b"), 200)
    assert "a-1.0.tar.gz" in names(cache)
    os.close(fd)
    keep(cache, "c")
    assert names(cache) == ["c-1.0.tar.gz"]


def test_counting_anew(open_cache: Open, tmp_path: Path) -> None:
    """The count is wrong where somebody without a limit, or a copy by hand, has filled the cache."""
    cache = open_cache(300)
    filename = keep(cache, "a")
    age(cache, filename, 300)
    for letter in "bcd":
        path = tmp_path / "cache" / "files" / (letter * 2) / (letter * 64) / f"{letter}-1.0.tar.gz"
        path.parent.mkdir(parents=True)
        path.write_bytes(bytes(100))
    cache.tidy()
    assert len(names(cache)) == 4
    cache.tidy(count_anew=True)
    assert len(names(cache)) == 3
    assert filename not in names(cache)


def test_no_limit_makes_the_next_limit_count(open_cache: Open) -> None:
    limited, unlimited = open_cache(300), open_cache(None)
    keep(limited, "a")
    for letter in "bcd":
        keep(unlimited, letter)
    limited.tidy()
    assert len(names(limited)) == 3


def test_metadata_count(open_cache: Open) -> None:
    """Towards the limit as files do: they push out what is older, and are pushed out."""
    cache = open_cache(300)
    age(cache, keep(cache, "a", 200), 300)
    for number in range(2):
        cache.write_metadata(KEY, bytes([number]) * 100)
    assert [(kept.is_metadata, kept.size) for kept in cache.files()] == [(True, 100), (True, 100)]
    keep(cache, "b", 300)
    assert names(cache) == ["b-1.0.tar.gz"]


def test_damaged_metadata_are_not_returned(cache: Cache) -> None:
    """Whether or not anybody knows what they must be."""
    cache.write_metadata(KEY, CONTENT)
    assert cache.read_metadata(KEY, SHA256) == cache.read_metadata(KEY, None) == CONTENT
    assert cache.read_metadata(KEY, "0" * 64) is None
    [kept] = cache.files()
    kept.path.write_bytes(CONTENT[:-1])
    assert cache.read_metadata(KEY, SHA256) is None
    assert cache.read_metadata(KEY, None) is None


def test_metadata_are_used_by_reading(open_cache: Open) -> None:
    """By a time stamp of our own: file systems count no second reading within a day."""
    cache = open_cache(300)
    cache.write_metadata(KEY, CONTENT)
    [kept] = cache.files()
    age(cache, kept.filename, -600)
    age(cache, keep(cache, "a"), -300)
    assert cache.read_metadata(KEY, None) == CONTENT
    assert names(cache) == [kept.filename, "a-1.0.tar.gz"]


@pytest.mark.parametrize("is_sent", (True, False))
def test_what_never_fits_pushes_nothing_out(open_cache: Open, is_sent: bool) -> None:
    """Neither when it comes nor while somebody still reads it."""
    cache = open_cache(300)
    age(cache, keep(cache, "a"), 300)
    with closing(cache.begin(KEY)) as large:
        os.write(large.fd, bytes(1000))
        cache.publish(large, KEY, "large-1.0.tar.gz")
        if is_sent:
            keep(cache, "b")
            assert names(cache)[0] == "a-1.0.tar.gz"
    keep(cache, "c")
    assert "a-1.0.tar.gz" in names(cache)
    assert "large-1.0.tar.gz" not in names(cache)


def test_dropping_what_came_since(cache: Cache) -> None:
    """What was here before stays; nothing is left of the other, not even its directory."""
    filename = keep(cache, "a")
    [kept] = cache.files()
    came = kept.path.stat().st_mtime
    cache.drop("a" * 64, filename, came + 1)
    assert names(cache) == [filename]
    cache.drop("a" * 64, filename, came)
    assert names(cache) == []
    assert not kept.path.parent.exists()


# Pages


def test_pages_and_when_they_were_confirmed(cache: Cache, open_cache: Open) -> None:
    """Every change is seen by others; a confirmation is no change, but is on the disk."""
    other = open_cache(None)
    assert (cache.read_page("up", DEMO), cache.page_stamp("up", DEMO)) == (None, None)
    before = other.generation()
    stamp = cache.write_page("up", DEMO, b"page", checked=10**9)
    assert other.generation() != before
    assert stamp[1] == 10**9
    assert other.read_page("up", DEMO) == (b"page", stamp)
    assert list(other.pages(DEMO)) == [("up", b"page")]
    before = other.generation()
    now = time.time_ns()
    confirmed = cache.confirm_page("up", DEMO)
    assert confirmed is not None
    assert (confirmed[0], confirmed[1] >= now) == (stamp[0], True)
    assert other.generation() == before
    assert cache.write_page("up", DEMO, b"page")[1] >= now
    assert cache.confirm_page("up", NormalizedName("absent")) is None
    assert (cache.remove_page(DEMO), cache.remove_page(DEMO)) == (1, 0)


def test_purging(cache: Cache, open_cache: Open) -> None:
    """Pages stay, because they know what was seen first, and are as old as can be."""
    keep(cache, "a")
    cache.write_page("up", DEMO, b"page")
    before = cache.generation()
    open_cache(None).purge()
    assert names(cache) == []
    assert cache.generation() != before
    found = cache.read_page("up", DEMO)
    assert found is not None
    assert (found[0], found[1][1]) == (b"page", 0)


def test_a_second_process_changes_nothing(cache: Cache, open_cache: Open) -> None:
    """Its start is no reason for the others to look at their pages again."""
    before = cache.generation()
    open_cache(None)
    assert cache.generation() == before


def test_a_cache_that_is_removed_under_our_feet(cache: Cache, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "cache" / "partial")
    shutil.rmtree(tmp_path / "cache" / "files")
    filename = keep(cache, "a")
    assert names(cache) == [filename]
    shutil.rmtree(tmp_path / "cache" / "partial")
    shutil.rmtree(tmp_path / "cache" / "pages")
    cache.write_page("up", DEMO, b"page")
    assert cache.usage() == Usage(pages=1, page_bytes=4, files=1, file_bytes=100)

"""Promises of the mirror that show only when an upstream breaks its own: in the last byte, in a digest, in its word."""

import hashlib
import os
import random
import signal
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from socket import create_server
from typing import Any

import pytest

from tests.faults.answers import Panel
from tests.mirror.asking import (
    ASK_EACH_TIME,
    ask,
    beginning,
    has_failed,
    is_complete,
    is_kept,
    list_copies,
    listed,
    page_of,
    read,
    url_of,
)
from tests.mirror.conftest import Mirror
from tests.mirror.listings import core_metadata_of
from tests.mirror.test_mirror_distrust import entry, say, two_upstreams
from tests.tools.distributions import build_sdist, build_wheel
from tests.tools.mirrored import Mirrored
from tests.tools.program import Program
from tests.tools.server import wait_until

BIG = build_sdist("demo", "1.0", extra_files={"data.bin": random.Random(0).randbytes(700_000)})
SIZE = len(BIG.content)
#: Wrong in the last byte alone.
WRONG = BIG.content[:-1] + bytes((BIG.content[-1] ^ 1,))
WHEEL = build_wheel("demo", "1.0")
NEWER = build_wheel("demo", "2.0")
IMPOSTOR = build_wheel("demo", "1.0", description="other bytes")
AT_UPSTREAM = f"/files/demo/{BIG.filename}"


@dataclass(slots=True)
class Holding:
    """A host with one file, sent in chunks: all bytes of it, and nothing that ends it before `release` is set."""

    url: str
    sent: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)


@contextmanager
def holding(content: bytes) -> Iterator[Holding]:
    with create_server(("127.0.0.1", 0)) as listener:
        host = Holding(f"http://127.0.0.1:{listener.getsockname()[1]}/file")

        def serve() -> None:
            connection, _ = listener.accept()
            # Whoever has heard enough hangs up.
            with connection, suppress(ConnectionError):
                while (head := connection.recv(1 << 16)) and b"\r\n\r\n" not in head:
                    pass
                connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n")
                connection.sendall(b"%x\r\n%b\r\n" % (len(content), content))
                host.sent.set()
                host.release.wait()
                connection.sendall(b"0\r\n\r\n")

        server = threading.Thread(target=serve, daemon=True)
        server.start()
        try:
            yield host
        finally:
            host.release.set()
        server.join(10)


# Bytes


@pytest.mark.parametrize("content", (WRONG, BIG.content), ids=("wrong", "right"))
def test_the_last_byte_is_held_back(mirror: Mirror, mirrored: Mirrored, packages: Path, content: bytes) -> None:
    """All bytes are here, and until they are known to be right one of them is missing from what clients have."""
    with holding(content) as host:
        say(mirrored, entry(BIG, url=host.url))
        server = mirror()
        with beginning(server, url_of(BIG)) as response:
            start = response.read(SIZE - 1)
            assert host.sent.wait(10)
            host.release.set()
            rest = read(response)
    assert start == BIG.content[:-1]
    assert (rest.body, rest.is_whole) == ((BIG.content[-1:], True) if content == BIG.content else (b"", False))
    assert is_kept(packages, BIG) is (content == BIG.content)


@pytest.mark.parametrize("algorithm", ("md5", "sha512"))
def test_another_digest_is_checked(mirror: Mirror, mirrored: Mirrored, packages: Path, algorithm: str) -> None:
    digest = hashlib.new(algorithm, BIG.content, usedforsecurity=False).hexdigest()
    mirrored.add("demo", BIG)
    say(mirrored, entry(BIG, hashes={algorithm: digest}))
    server, url = mirror(), url_of(BIG, is_hashed=False)
    mirrored.spoil(AT_UPSTREAM, body=WRONG)
    answer = ask(server, url)
    assert not is_complete(answer)
    assert len(answer.body) < SIZE
    assert mirrored.sent[AT_UPSTREAM] == SIZE
    assert list_copies(packages, BIG) == []
    mirrored.spoil(AT_UPSTREAM)
    assert ask(server, url).body == BIG.content


@pytest.mark.parametrize("is_hashed", (True, False), ids=("hashed", "hashless"))
@pytest.mark.parametrize("is_more", (True, False), ids=("more", "fewer"))
def test_another_size_than_announced(
    mirror: Mirror, mirrored: Mirrored, packages: Path, is_more: bool, is_hashed: bool
) -> None:
    """It is refused though the hash is right: the page has promised both. Too many bytes are not waited out."""
    facts: dict[str, Any] = {} if is_hashed else {"hashes": {}}
    with holding(BIG.content) as host:
        if not is_more:
            host.release.set()
        say(mirrored, entry(BIG, url=host.url, size=SIZE - 1 if is_more else SIZE + 1, **facts))
        server = mirror()
        answer = ask(server, url_of(BIG, is_hashed=is_hashed))
        server.wait_for_log("sends more bytes" if is_more else f"sent {SIZE} of {SIZE + 1} bytes")
    assert not is_complete(answer)
    assert len(answer.body) < SIZE
    assert list_copies(packages, BIG) == []


def test_endless_metadata(mirror: Mirror, mirrored: Mirrored, packages: Path) -> None:
    """Nobody has said what they must be, and yet they cannot be so long."""
    mirrored.look.metadata_hashes = False
    mirrored.add("demo", WHEEL)
    metadata = core_metadata_of(WHEEL)
    assert metadata is not None
    mirrored.spoil("*.metadata", body=metadata + b"x" * 2**24)
    server = mirror()
    answer = ask(server, f"{url_of(WHEEL)}.metadata")
    assert has_failed(answer), answer.status
    assert not [path for path in packages.rglob("*.metadata") if path.stat().st_size > 1_000_000]


def test_how_long_files_stay_the_same(mirror: Mirror, mirrored: Mirrored) -> None:
    """A hash in the URL is for ever; without one, the next question may have another answer."""
    mirrored.add("demo", WHEEL)
    server = mirror()
    ages = [ask(server, url_of(WHEEL)).headers["cache-control"] for _ in range(2)]
    assert all("immutable" in age for age in ages), ages
    mirrored.look.hashes = False
    mirrored.add("bare", build_wheel("bare", "1.0"))
    for _ in range(2):
        answer = ask(server, url_of(build_wheel("bare", "1.0"), is_hashed=False))
        assert answer.status == 200
        assert "no-cache" in answer.headers["cache-control"]
        assert "immutable" not in answer.headers["cache-control"]


# Words


def test_a_project_that_is_quarantined_upstream(mirror: Mirror, mirrored: Mirrored, packages: Path) -> None:
    """What was kept of it before is not offered either."""
    mirrored.add("demo", WHEEL)
    server = mirror(config=ASK_EACH_TIME)
    assert is_complete(ask(server, url_of(WHEEL)))
    mirrored.set_status("demo", "quarantined", "malware")
    wait_until(lambda: listed(server) == {}, within=20)
    assert page_of(server).json["project-status"] == {"status": "quarantined", "reason": "malware"}
    assert is_kept(packages, WHEEL)
    for url in (url_of(WHEEL), f"{url_of(WHEEL)}.metadata"):
        refused = ask(server, url)
        assert (refused.status, "quarantined" in refused.reason) == (403, True)


def test_replaced_bytes(mirror: Mirror, mirrored: Mirrored, program: Program) -> None:
    """The first ones are offered for as long as they are here, and nothing is after that."""
    mirrored.add("demo", WHEEL, NEWER)
    server = mirror(config=ASK_EACH_TIME)
    assert is_complete(ask(server, url_of(WHEEL)))
    mirrored.add("demo", IMPOSTOR)
    assert page_of(server).status == 200
    server.wait_for_log(WHEEL.filename)
    assert listed(server) == {one.filename: url_of(one) for one in (WHEEL, NEWER)}
    assert ask(server, url_of(WHEEL)).body == WHEEL.content
    assert ask(server, url_of(IMPOSTOR)).status == 403
    assert program.run("cache", "purge").returncode == 0
    wait_until(lambda: listed(server) == {NEWER.filename: url_of(NEWER)}, within=20)
    assert ask(server, url_of(WHEEL)).status == 403
    assert ask(server, url_of(IMPOSTOR)).status == 403


def test_files_of_a_project_that_has_gone(mirror: Mirror, mirrored: Mirrored) -> None:
    """What is here is had by its URL; what is not is unknown as the project is, though its bytes lie there yet."""
    mirrored.add("demo", WHEEL, NEWER)
    server = mirror(config=ASK_EACH_TIME)
    assert is_complete(ask(server, url_of(WHEEL)))
    mirrored.spoil("/simple/demo/", status=404)
    wait_until(lambda: page_of(server).status == 404, within=20)
    assert ask(server, url_of(WHEEL)).body == WHEEL.content
    assert ask(server, url_of(NEWER)).status == 404
    assert page_of(server).status == 404
    assert mirrored.count_files(NEWER) == 0


def test_the_first_upstream_decides_again(mirror: Mirror, mirrored: Mirrored, second: Mirrored) -> None:
    """The second was asked because the first had failed, and that is soon forgotten: the page itself is fresh yet."""
    mirrored.add("demo", WHEEL)
    second.add("demo", NEWER)
    mirrored.spoil("*", status=500)
    server = mirror(config=two_upstreams(mirrored, second))
    assert list(listed(server)) == [NEWER.filename]
    mirrored.heal()
    wait_until(lambda: list(listed(server)) == [WHEEL.filename], within=60)


# Processes


def test_a_follower_starts_anew(mirror: Mirror, mirrored: Mirrored) -> None:
    """The process that fetched has died before anybody had a byte: whoever followed it fetches by itself."""
    mirrored.add("demo", BIG)
    server = mirror("--workers", "2")
    with closing(Panel(server)) as panel:
        (victim, theirs), (follower, others) = panel.connections.items()
        fault = mirrored.spoil(AT_UPSTREAM, stall=0)
        theirs.request("GET", url_of(BIG))
        assert fault.reached.wait(10)
        others.request("GET", url_of(BIG))
        wait_until(lambda: has_open(follower, "/cache/partial/"), within=10)
        os.kill(victim, signal.SIGKILL)
        mirrored.heal()
        answer = read(others.getresponse())
    assert is_complete(answer)
    assert answer.body == BIG.content
    assert mirrored.count_files(BIG) == 2


def has_open(pid: int, part: str) -> bool:
    """Whether the process has a file open whose path contains this."""
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            if part in str(descriptor.readlink()):
                return True
    return False

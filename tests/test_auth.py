"""From a header to an Identity, and from an Identity to yes or no."""

import asyncio
import base64
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from passlib.hash import bcrypt, ldap_sha1

from pypiserver_ng.auth import Authenticator, Gate, Htpasswd, PasswordFile
from pypiserver_ng.auth.credentials import CAPACITY, LIFETIME, THREADS, WAITING
from pypiserver_ng.errors import Failure, Unauthenticated, Unavailable
from pypiserver_ng.model import ANONYMOUS, Action, Identity, NormalizedName, Right

ALICE = Identity("alice")
DEMO = NormalizedName("demo")
#: What each action is about, first of all.
RIGHTS = {Action.LIST: Right.LIST, Action.DOWNLOAD: Right.DOWNLOAD, Action.UPDATE: Right.UPLOAD}


def basic(user: str, password: str, encoding: str = "utf-8") -> bytes:
    return b"Basic " + base64.b64encode(f"{user}:{password}".encode(encoding))


def line(user: str, password: str) -> str:
    return f"{user}:{bcrypt.using(rounds=4, salt='a' * 21 + 'e').hash(password)}\n"


RIGHT = basic("alice", "secret")
WRONG = basic("alice", "wrong")


class Clock:
    """Seconds that pass when a test says so."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "htpasswd"
    path.write_text(line("alice", "secret") + line("bøb", "pässword"))
    return path


def replace(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def append(path: Path, text: str) -> None:
    with path.open("a") as out:
        out.write(text)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def file(path: Path) -> PasswordFile:
    # Long after whatever a test writes.
    return PasswordFile(path, pause=lambda _: None, clock=lambda: time.time() + 60)


@pytest.fixture
def authenticator(file: PasswordFile, clock: Clock) -> Authenticator:
    return Authenticator(file, clock=clock)


@pytest.fixture
def verifications(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect the user of every real verification."""
    seen: list[str] = []
    verify = Htpasswd.verify

    def count(self: Htpasswd, user: str, password: str) -> bool:
        seen.append(user)
        return verify(self, user, password)

    monkeypatch.setattr(Htpasswd, "verify", count)
    return seen


async def refused(answer: Awaitable[Identity]) -> str:
    """Await a refusal and answer its line."""
    with pytest.raises(Unauthenticated) as caught:
        await answer
    return caught.value.message


async def hold(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds."""
    async with asyncio.timeout(10):
        while True:
            if condition():
                return
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    ("header", "expected"),
    (
        (None, ANONYMOUS),
        (RIGHT, ALICE),
        (RIGHT.replace(b"Basic", b"bAsIc"), ALICE),
        (RIGHT.replace(b" ", b"   ") + b" ", ALICE),
        (basic("bøb", "pässword"), Identity("bøb")),
        (basic("bøb", "pässword", "latin-1"), Identity("bøb")),
    ),
)
def test_right_header_names_its_user(authenticator: Authenticator, header: bytes | None, expected: Identity) -> None:
    """Credentials of the file become their user, in each way that clients write them."""
    assert expected == asyncio.run(authenticator.identify(header))


@pytest.mark.parametrize(
    "header",
    (
        b"",
        b" ",
        b"Basic",
        b"Basic ",
        b"Basic !!!",
        b"Basic YWxpY2U6c2VjcmV0Cg",  # no padding
        b"Basic YWxp Y2U6c2VjcmV0",
        b"Basic\tYWxpY2U6c2VjcmV0",
        b"Basic \xff\xfe",
        b"Basic " + base64.b64encode(b"no colon"),
        b"Basic " + base64.b64encode(b"\xff\xfe"),
        b"Basic " + base64.b64encode(b"\xff:\xfe"),
        b"Bearer YWxpY2U6c2VjcmV0",
        b"Digest username=alice",
        RIGHT + b", " + RIGHT,
        WRONG,
        basic("alice", ""),
        basic("", "secret"),
        basic("", ""),
        basic("nobody", "secret"),
        basic("alice", "secret\0"),
        basic("alice", "x" * 73),
        basic("alice:secret", "secret"),
    ),
)
def test_wrong_header_is_refused_in_one_line(
    authenticator: Authenticator, header: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Broken headers and wrong credentials are refused with words that repeat nothing of them."""
    message = asyncio.run(refused(authenticator.identify(header)))
    assert "\n" not in message
    assert "alice" not in message
    assert "secret" not in message
    assert caplog.text == ""
    assert authenticator.peek(header) is None


def test_verified_credentials_are_remembered_for_a_minute(
    authenticator: Authenticator, clock: Clock, verifications: list[str]
) -> None:
    """Within a minute the password is hashed once; then again."""

    async def scenario() -> None:
        assert authenticator.peek(RIGHT) is None
        await authenticator.identify(RIGHT)
        clock.now += LIFETIME - 0.001
        assert authenticator.peek(RIGHT) == ALICE
        assert await authenticator.identify(RIGHT) == ALICE
        assert verifications == ["alice"]
        clock.now += 0.001
        assert authenticator.peek(RIGHT) is None
        assert await authenticator.identify(RIGHT) == ALICE
        assert verifications == ["alice", "alice"]

    asyncio.run(scenario())


def test_memory_is_bounded_and_forgets_the_least_recently_used(path: Path, clock: Clock) -> None:
    """One more than fit pushes out the one that was not asked for."""
    users = [f"user{number}" for number in range(CAPACITY + 1)]
    path.write_text("".join(f"{user}:{ldap_sha1.hash('x')}\n" for user in users))
    authenticator = Authenticator(PasswordFile(path), clock=clock)
    headers = [basic(user, "x") for user in users]

    async def scenario() -> None:
        for header in headers[:CAPACITY]:
            await authenticator.identify(header)
        assert authenticator.peek(headers[0]) is not None
        await authenticator.identify(headers[-1])

    asyncio.run(scenario())
    forgotten = [header for header in headers if authenticator.peek(header) is None]
    assert forgotten == [headers[1]]


@pytest.mark.parametrize("text", ("", "alice:plain\n", line("alice", "changed")))
def test_removed_or_changed_user_is_refused_after_the_reload(
    authenticator: Authenticator, file: PasswordFile, path: Path, text: str
) -> None:
    """What is remembered counts for nothing when the file says otherwise."""

    async def scenario() -> None:
        assert await authenticator.identify(RIGHT) == ALICE
        replace(path, text)
        file.refresh()
        assert authenticator.peek(RIGHT) is None
        await refused(authenticator.identify(RIGHT))

    asyncio.run(scenario())


def test_who_was_let_in_is_let_in_for_a_minute(authenticator: Authenticator, clock: Clock) -> None:
    """However often the same answer was given meanwhile without a look at the header."""

    async def scenario() -> None:
        await authenticator.identify(RIGHT)
        still = authenticator.remember(RIGHT)
        clock.now += LIFETIME - 0.001
        assert still()
        clock.now += 0.001
        assert not still()
        await authenticator.identify(RIGHT)
        assert not still()
        assert authenticator.remember(RIGHT)()

    asyncio.run(scenario())


def test_who_is_let_in_without_a_look_at_the_header(authenticator: Authenticator) -> None:
    """Whose answer depends on nobody's credentials, and whose does."""

    async def scenario() -> None:
        gate = Gate(frozenset({Action.DOWNLOAD}), authenticator)
        for action, header in ((Action.LIST, RIGHT), (Action.LIST, None)):
            assert gate.authorize_now(RIGHTS[action], DEMO, header) == ANONYMOUS
            assert gate.remember(RIGHTS[action], header) is None
        for action in (Action.DOWNLOAD, Action.UPDATE):
            assert gate.authorize_now(RIGHTS[action], DEMO, RIGHT) is None
            assert await gate.authorize(RIGHTS[action], DEMO, RIGHT) == ALICE
            assert gate.authorize_now(RIGHTS[action], DEMO, RIGHT) == ALICE
            still = gate.remember(RIGHTS[action], RIGHT)
            assert still is not None
            assert still()
            authenticator._verified.clear()

    asyncio.run(scenario())


def test_reload_forgets_nobody_whose_line_stays(authenticator: Authenticator, file: PasswordFile, path: Path) -> None:
    """A change of somebody else's line costs nobody a second hashing."""

    async def scenario() -> None:
        await authenticator.identify(RIGHT)
        append(path, line("carol", "x"))
        file.refresh()
        assert authenticator.peek(RIGHT) == ALICE

    asyncio.run(scenario())


def test_user_added_a_moment_ago_can_log_in_at_once(authenticator: Authenticator, path: Path) -> None:
    """A failed verification looks at the file before it refuses, without waiting for the watch."""

    async def scenario() -> None:
        await refused(authenticator.identify(basic("carol", "x")))
        append(path, line("carol", "x"))
        assert await authenticator.identify(basic("carol", "x")) == Identity("carol")

    asyncio.run(scenario())


def test_watch_follows_the_file(authenticator: Authenticator, path: Path) -> None:
    """A removed user is refused soon, with nothing but the background task at work."""

    async def scenario() -> None:
        watch = asyncio.create_task(authenticator.watch(0.01))
        await authenticator.identify(RIGHT)
        replace(path, line("carol", "x"))
        await hold(lambda: authenticator.peek(RIGHT) is None)
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)

    asyncio.run(scenario())


def test_parallel_requests_share_one_verification(authenticator: Authenticator, verifications: list[str]) -> None:
    """Twenty requests with the same new credentials hash once, right or wrong."""

    async def scenario() -> None:
        found = await asyncio.gather(*(authenticator.identify(RIGHT) for _ in range(20)))
        assert found == [ALICE] * 20
        assert verifications == ["alice"]
        lines = await asyncio.gather(*(refused(authenticator.identify(WRONG)) for _ in range(20)))
        assert len(set(lines)) == 1
        assert verifications == ["alice", "alice"]

    asyncio.run(scenario())


def test_a_client_that_leaves_does_not_end_the_verification_of_the_others(
    authenticator: Authenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of two equal requests is cancelled; the second is answered."""
    go_on = threading.Event()
    verify = Htpasswd.verify

    def wait(self: Htpasswd, user: str, password: str) -> bool:
        go_on.wait(10)
        return verify(self, user, password)

    monkeypatch.setattr(Htpasswd, "verify", wait)

    async def scenario() -> None:
        first = asyncio.create_task(authenticator.identify(RIGHT))
        second = asyncio.create_task(authenticator.identify(RIGHT))
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        go_on.set()
        assert await second == ALICE

    asyncio.run(scenario())


def test_password_changed_during_its_verification_is_refused(
    authenticator: Authenticator, file: PasswordFile, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old password, verified against content that was replaced meanwhile, lets nobody in."""
    verify = Htpasswd.verify

    def change(self: Htpasswd, user: str, password: str) -> bool:
        matches = verify(self, user, password)
        replace(path, line("alice", "changed"))
        file.refresh()
        return matches

    monkeypatch.setattr(Htpasswd, "verify", change)
    asyncio.run(refused(authenticator.identify(RIGHT)))
    assert authenticator.peek(RIGHT) is None


def test_too_many_verifications_are_put_off(authenticator: Authenticator, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the queue is full, new credentials are asked to come back; the waiting ones are answered."""
    go_on = threading.Event()
    monkeypatch.setattr(Htpasswd, "verify", lambda *_: go_on.wait(10) and False)
    headers = [basic("alice", str(number)) for number in range(THREADS + WAITING)]

    async def scenario() -> None:
        waiting = [asyncio.create_task(authenticator.identify(header)) for header in headers]
        await asyncio.sleep(0)
        with pytest.raises(Unavailable) as caught:
            await authenticator.identify(RIGHT)
        assert caught.value.retry_after == 1
        also = asyncio.create_task(authenticator.identify(headers[0]))
        await asyncio.sleep(0)
        go_on.set()
        answers = await asyncio.gather(*waiting, also, return_exceptions=True)
        assert [type(answer) for answer in answers] == [Unauthenticated] * (len(headers) + 1)
        await refused(authenticator.identify(RIGHT))

    asyncio.run(scenario())


@pytest.mark.parametrize("action", Action)
def test_listed_action_needs_credentials(authenticator: Authenticator, action: Action) -> None:
    """Without credentials or with wrong ones it is refused; with right ones it is theirs, later from memory."""
    gate = Gate(frozenset({action}), authenticator)

    async def scenario() -> None:
        with pytest.raises(Unauthenticated, match="Credentials are needed"):
            gate.authorize_now(RIGHTS[action], DEMO, None)
        await refused(gate.authorize(RIGHTS[action], DEMO, None))
        await refused(gate.authorize(RIGHTS[action], DEMO, WRONG))
        await refused(gate.authorize(RIGHTS[action], DEMO, b"Bearer x"))
        assert gate.authorize_now(RIGHTS[action], DEMO, RIGHT) is None
        assert await gate.authorize(RIGHTS[action], DEMO, RIGHT) == ALICE
        assert gate.authorize_now(RIGHTS[action], DEMO, RIGHT) == ALICE

    asyncio.run(scenario())
    gate.require(RIGHTS[action], DEMO, ALICE)
    with pytest.raises(Unauthenticated):
        gate.require(RIGHTS[action], DEMO, ANONYMOUS)


@pytest.mark.parametrize("action", (Action.DOWNLOAD, Action.LIST))
@pytest.mark.parametrize("header", (None, RIGHT, WRONG, b"Bearer x", b"\xff"))
def test_open_action_ignores_the_header(
    authenticator: Authenticator, verifications: list[str], action: Action, header: bytes | None
) -> None:
    """Stale credentials do not matter where none are needed, and cost no hashing."""
    gate = Gate(frozenset({Action.UPDATE}), authenticator)
    assert gate.authorize_now(RIGHTS[action], DEMO, header) == ANONYMOUS
    assert asyncio.run(gate.authorize(RIGHTS[action], DEMO, header)) == ANONYMOUS
    assert verifications == []


@pytest.mark.parametrize(
    ("header", "expected"), ((None, ANONYMOUS), (RIGHT, ALICE), (WRONG, ANONYMOUS), (b"Bearer x", ANONYMOUS))
)
def test_open_upload_is_attributed_but_never_refused(
    authenticator: Authenticator, header: bytes | None, expected: Identity
) -> None:
    """An upload that needs no credentials is recorded under its user where they are right."""
    gate = Gate(frozenset(), authenticator)
    assert expected == asyncio.run(gate.authorize(RIGHTS[Action.UPDATE], DEMO, header))


def test_open_upload_is_not_refused_when_the_queue_is_full(
    authenticator: Authenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has to come back for a name in the record."""
    go_on = threading.Event()
    monkeypatch.setattr(Htpasswd, "verify", lambda *_: go_on.wait(10) and False)
    gate = Gate(frozenset(), authenticator)

    async def scenario() -> None:
        headers = [basic("alice", str(number)) for number in range(THREADS + WAITING)]
        waiting = [asyncio.create_task(gate.authorize(RIGHTS[Action.UPDATE], DEMO, header)) for header in headers]
        await asyncio.sleep(0)
        assert await gate.authorize(RIGHTS[Action.UPDATE], DEMO, RIGHT) == ANONYMOUS
        go_on.set()
        assert await asyncio.gather(*waiting) == [ANONYMOUS] * len(headers)

    asyncio.run(scenario())


@pytest.mark.parametrize("header", (None, RIGHT))
def test_without_a_password_file_listed_actions_are_always_refused(header: bytes | None) -> None:
    """The refusal says what the operator has to do; open actions stay open."""
    gate = Gate(frozenset({Action.UPDATE, Action.LIST}), Authenticator(None))
    for action in (Action.UPDATE, Action.LIST):
        with pytest.raises(Unauthenticated, match="--passwords"):
            asyncio.run(gate.authorize(RIGHTS[action], DEMO, header))
    assert asyncio.run(gate.authorize(RIGHTS[Action.DOWNLOAD], DEMO, header)) == ANONYMOUS


def test_without_a_password_file_open_uploads_are_anonymous() -> None:
    """`-P . -a .`: everyone may upload, whatever their client sends."""
    gate = Gate(frozenset(), Authenticator(None))
    assert asyncio.run(gate.authorize(RIGHTS[Action.UPDATE], DEMO, RIGHT)) == ANONYMOUS


def test_closed_authenticator_ends_its_threads(authenticator: Authenticator) -> None:
    """After close nothing is verified any more; what is remembered still answers."""
    asyncio.run(authenticator.identify(RIGHT))
    authenticator.close()
    assert authenticator.peek(RIGHT) == ALICE
    with pytest.raises(RuntimeError):
        asyncio.run(authenticator.identify(WRONG))


def test_failures_show_no_credentials(authenticator: Authenticator) -> None:
    """Neither a refusal nor what is remembered carries the header, the password or the hash in its repr."""
    asyncio.run(authenticator.identify(RIGHT))
    with pytest.raises(Failure) as caught:
        asyncio.run(authenticator.identify(WRONG))
    for text in (repr(caught.value), repr(authenticator._verified)):
        for secret in ("secret", "wrong", "$2b$", RIGHT[6:].decode()):
            assert secret not in text

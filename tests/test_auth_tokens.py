"""Tokens as they are kept and as they are checked: in a real catalog, by a book that follows it."""

import asyncio
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from pypiserver_ng.auth import Authenticator, TokenBook, make_token
from pypiserver_ng.catalog import Catalog
from pypiserver_ng.errors import Conflict, NotFound, Unauthenticated
from pypiserver_ng.model import Action, NormalizedName, Status, Token
from tests.test_auth import basic, hold

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)
UPDATE = frozenset({Action.UPDATE})


class Clock:
    """A moment that passes when a test says so."""

    now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    catalog = Catalog(tmp_path)
    yield catalog
    catalog.close()


@pytest.fixture
def book(catalog: Catalog, clock: Clock) -> Iterator[TokenBook]:
    book = TokenBook(catalog.tokens, clock=clock)
    yield book
    book.close()


def keep(
    catalog: Catalog, name: str = "deploy", lifetime: timedelta | None = None, now: datetime = NOW
) -> tuple[Token, str]:
    token, text = make_token(name, ("acme-*",), UPDATE, now, lifetime, "2.0")
    catalog.tokens.add(token, "root")
    return token, text


def read_tokens(catalog: Catalog) -> list[Token]:
    """As they were made: when is known by their event."""
    return [replace(token, created=NOW) for token, _ in catalog.tokens.list_used()]


def ask(book: TokenBook, header: bytes) -> str:
    """Who that is, by a new authenticator that knows no passwords."""

    async def identify() -> str:
        identity = await Authenticator(None, book).identify(header)
        return identity.user or ""

    try:
        return asyncio.run(identify())
    except Unauthenticated as fault:
        return "told" if "pypi-ng-" in fault.message else "refused"


def test_a_token_is_found_by_each_way_to_send_it(catalog: Catalog, book: TokenBook) -> None:
    """As the password of __token__, as Bearer, and as the public index's own scheme; nothing else is one."""
    _, text = keep(catalog)
    for header in (basic("__token__", text), b"Bearer " + text.encode(), b"bearer  " + text.encode() + b" "):
        assert ask(book, header) == "token:deploy"
    other = make_token("deploy", ("*",), UPDATE, NOW)[1]
    for wrong in (text[:-1], text + "A", text[:-1] + "-", other, text[:30] + other[30:], text.upper(), "", "é", "\0"):
        assert ask(book, basic("__token__", wrong)) == "refused", wrong
        assert ask(book, b"Bearer " + wrong.encode()) == "refused", wrong
    assert ask(book, basic("deploy", text)) == "refused"
    assert ask(book, basic("token:deploy", text)) == "refused"


def test_a_token_is_what_was_kept(tmp_path: Path) -> None:
    """All but its secret, which is nowhere; also in a catalog that was made anew from the journal."""
    catalog = Catalog(tmp_path)
    token, text = keep(catalog, lifetime=90 * DAY)
    assert read_tokens(catalog) == [token]
    secret = text.rpartition("-")[2].encode()
    for path in tmp_path.iterdir():
        assert secret not in path.read_bytes(), path
    assert secret.decode() not in repr(token)
    assert token.hash.hex() not in repr(token)
    catalog.close()
    (tmp_path / "catalog.sqlite").unlink()
    again = Catalog(tmp_path)
    try:
        assert read_tokens(again) == [token]
        again.tokens.revoke("deploy", None)
    finally:
        again.close()
    (tmp_path / "catalog.sqlite").unlink()
    third = Catalog(tmp_path)
    assert third.tokens.list_used() == []
    third.close()


def test_what_was_revoked_is_refused_at_once(catalog: Catalog, book: TokenBook) -> None:
    """Also where the token was valid a moment ago, and by what was remembered of it."""
    _, text = keep(catalog)
    header = b"Bearer " + text.encode()
    authenticator = Authenticator(None, book)

    async def scenario() -> None:
        assert (await authenticator.identify(header)).token is not None
        assert authenticator.peek(header) is not None
        is_valid = authenticator.remember(header)
        assert is_valid()
        catalog.tokens.revoke("deploy", "root")
        assert not is_valid()
        assert authenticator.peek(header) is None
        with pytest.raises(Unauthenticated, match="revoked"):
            await authenticator.identify(header)
        # Its name can be taken again, and that is another token.
        keep(catalog)
        with pytest.raises(Unauthenticated):
            await authenticator.identify(header)

    asyncio.run(scenario())
    with pytest.raises(NotFound, match="'nobody'"):
        catalog.tokens.revoke("nobody", None)


def test_an_expired_token_is_refused(catalog: Catalog, book: TokenBook, clock: Clock) -> None:
    """From that moment on, without a change of the catalog."""
    _, text = keep(catalog, lifetime=timedelta(seconds=30))
    header = b"Bearer " + text.encode()
    authenticator = Authenticator(None, book)

    async def scenario() -> None:
        await authenticator.identify(header)
        is_valid = authenticator.remember(header)
        clock.now = NOW + timedelta(seconds=29.999)
        assert is_valid()
        assert authenticator.peek(header) is not None
        clock.now = NOW + timedelta(seconds=30)
        assert not is_valid()
        assert authenticator.peek(header) is None
        with pytest.raises(Unauthenticated, match="expired"):
            await authenticator.identify(header)

    asyncio.run(scenario())


def test_a_name_is_taken_once(catalog: Catalog) -> None:
    """As long as its token is valid; what expired makes room, and is forgotten after a week."""
    keep(catalog, "short", DAY)
    keep(catalog, "long")
    for name in ("short", "long"):
        with pytest.raises(Conflict, match=f"there is a token {name} already"):
            keep(catalog, name)
    keep(catalog, "expired", timedelta(seconds=1), now=NOW - DAY)
    keep(catalog, "forgotten", timedelta(seconds=1), now=NOW - 8 * DAY)
    keep(catalog, "expired")
    assert [token.name for token, _ in catalog.tokens.list_used()] == ["expired", "long", "short"]


def test_names_of_no_person_are_taken_often(catalog: Catalog) -> None:
    for _ in range(2):
        keep(catalog, "publisher:git.example:acme/core", DAY)
    assert len(catalog.tokens.list_used()) == 2


def test_last_use_is_written_down(catalog: Catalog, book: TokenBook, clock: Clock) -> None:
    """To the minute, and without a change that others had to look at."""
    _, text = keep(catalog)
    header = b"Bearer " + text.encode()
    authenticator = Authenticator(None, book)

    def is_noted(moment: datetime) -> bool:
        return catalog.tokens.list_used()[0][1] == moment

    async def use_at(moment: datetime) -> None:
        clock.now = moment
        authenticator.note_use(await authenticator.identify(header), None)

    async def scenario() -> None:
        for moment, expected in ((NOW, NOW), (NOW + timedelta(seconds=59), NOW), (NOW + DAY, NOW + DAY)):
            serial = catalog.serial()
            await use_at(moment)
            await hold(partial(is_noted, expected))
            assert catalog.serial() == serial
            is_valid = authenticator.remember(header)
            assert is_valid()
            clock.now = moment + timedelta(minutes=1)
            # Whoever remembers asks again, so that the use is noted.
            assert not is_valid()

    asyncio.run(scenario())


def test_a_use_while_others_are_written_is_written_too(catalog: Catalog, clock: Clock) -> None:
    """It does not wait for another use, nor for the end; and who only asks uses nothing."""
    goes_on, is_writing = threading.Event(), threading.Event()

    class Slow:
        """A store whose disk takes its time."""

        is_still, load = catalog.tokens.is_still, catalog.tokens.load

        def note_uses(self, uses: Mapping[str, datetime]) -> None:
            is_writing.set()
            goes_on.wait(10)
            catalog.tokens.note_uses(uses)

    told: list[str] = []
    book = TokenBook(Slow(), lambda token, address: told.append(f"{token.name} {address}"), clock=clock)
    tokens = [keep(catalog, name) for name in ("first", "second", "third")]

    async def scenario() -> None:
        found = [await book.look_up(text) for _, text in tokens]
        assert all(found)
        for token in found[:2]:
            assert token is not None
            is_writing.clear()
            book.note_use(token, "192.0.2.1")
            await hold(is_writing.is_set)
            goes_on.set()
        await hold(lambda: [used for _, used in catalog.tokens.list_used()] == [NOW, NOW, None])

    try:
        asyncio.run(scenario())
    finally:
        book.close()
    assert told == ["first 192.0.2.1", "second 192.0.2.1"]


def test_changes_of_others_cost_no_reading(catalog: Catalog, book: TokenBook) -> None:
    """An upload makes the book look at one number, not at all tokens."""
    _, text = keep(catalog)
    assert ask(book, b"Bearer " + text.encode()) == "token:deploy"
    _, version, tokens = catalog.tokens.load(-1)
    assert tokens is not None
    catalog.set_status(NormalizedName("demo"), Status.QUARANTINED, None, None)
    assert catalog.tokens.load(version) == (catalog.serial(), version, None)

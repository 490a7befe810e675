"""Tokens as they are kept: made and revoked by events, looked up by the processes that check them."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import msgspec
from sqlalchemy import select
from sqlalchemy.dialects.sqlite import insert as upsert

from pypiserver_ng.catalog.database import Database, Transaction, read_serial
from pypiserver_ng.catalog.events import REVOKE, TOKEN, TokenFacts
from pypiserver_ng.catalog.rows import from_microseconds, to_microseconds
from pypiserver_ng.catalog.schema import state, token_uses, tokens
from pypiserver_ng.errors import Conflict, NotFound
from pypiserver_ng.model import Token

#: In the table of the catalog's own facts: the serial of the last change of tokens.
_CHANGED = "tokens"


class Tokens:
    """One catalog's tokens."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # What a server asks; see `auth.tokens.TokenStore`.

    def is_still(self, serial: int) -> bool:
        return self._database.shared.is_still(serial)

    def load(self, version: int) -> tuple[int, int, Sequence[Token] | None]:
        with self._database.reading() as connection:
            serial = read_serial(connection)
            changed = connection.scalar(select(state.c.value).where(state.c.key == _CHANGED)) or 0
            if changed == version:
                return serial, changed, None
            rows = connection.execute(select(tokens.c.created, tokens.c.content))
            return serial, changed, [_to_token(created, content) for created, content in rows]

    def note_uses(self, uses: Mapping[str, datetime]) -> None:
        statement = upsert(token_uses)
        statement = statement.on_conflict_do_update(index_elements=["id"], set_={"time": statement.excluded.time})
        rows = [{"id": number, "time": to_microseconds(moment)} for number, moment in uses.items()]
        with self._database.aside() as connection:
            connection.execute(statement, rows)

    # What people do

    def add(self, token: Token, user: str | None, address: str | None = None) -> None:
        """Raises Conflict where a token of that name is valid; many may have one that no person chose."""
        with self._database.change() as change:
            if not token.is_of_nobody and self._find_valid(change, token.name, token.created):
                raise Conflict(f"there is a token {token.name} already: revoke it first, or take another name")
            change.record(TOKEN, "", user=user, address=address, token=_to_facts(token))
            change.set_state(_CHANGED, change.serial)

    def revoke(self, name: str, user: str | None) -> None:
        """Every token of that name. Raises NotFound."""
        with self._database.change() as change:
            rows = change.connection.execute(select(tokens.c.id).where(tokens.c.name == name)).all()
            if not rows:
                raise NotFound(f"there is no token {name[:100]!a}: 'token list' names those that there are")
            for row in rows:
                _revoke(change, row.id, name, user)

    def burn(self, token: Token, address: str | None) -> None:
        """One token, by who has it."""
        with self._database.change() as change:
            _revoke(change, token.id, token.name, token.user, address)

    def list_used(self) -> list[tuple[Token, datetime | None]]:
        """All tokens by name, and when each was used last."""
        query = select(tokens.c.created, tokens.c.content, token_uses.c.time)
        query = query.outerjoin(token_uses, token_uses.c.id == tokens.c.id).order_by(tokens.c.name, tokens.c.created)
        with self._database.reading() as connection:
            return [
                (_to_token(created, content), None if used is None else from_microseconds(used))
                for created, content, used in connection.execute(query)
            ]

    def _find_valid(self, change: Transaction, name: str, now: datetime) -> bool:
        rows = change.connection.execute(select(tokens.c.expires).where(tokens.c.name == name))
        return any(row.expires is None or row.expires > to_microseconds(now) for row in rows)


def _revoke(change: Transaction, number: str, name: str, user: str | None, address: str | None = None) -> None:
    change.record(REVOKE, "", user=user, address=address, token=TokenFacts(number, name))
    change.set_state(_CHANGED, change.serial)


def _to_facts(token: Token) -> TokenFacts:
    return TokenFacts(
        token.id,
        token.name,
        token.hash.hex(),
        token.projects,
        tuple(sorted(token.actions)),
        None if token.expires is None else to_microseconds(token.expires),
        token.until_version,
    )


def _to_token(created: int, content: bytes) -> Token:
    facts = msgspec.json.decode(content, type=TokenFacts)
    return Token(
        facts.id,
        facts.name,
        bytes.fromhex(facts.hash),
        facts.projects,
        frozenset(facts.actions),
        from_microseconds(created).astimezone(UTC),
        None if facts.expires is None else from_microseconds(facts.expires),
        facts.until_version,
    )

"""What the catalog keeps of the use of tokens: nothing of a token that is not there any more."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pypiserver_ng.auth import make_token
from pypiserver_ng.catalog import Catalog
from pypiserver_ng.model import Action

NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with closing(Catalog(tmp_path)) as catalog:
        yield catalog


def keep_used(catalog: Catalog, name: str, made: datetime = NOW) -> str:
    """A token of one day that was used once; returns what it is found by."""
    token, _ = make_token(name, ("*",), frozenset({Action.UPDATE}), made, timedelta(days=1))
    catalog.tokens.add(token, None)
    catalog.tokens.note_uses({token.id: made})
    return token.id


def read_uses(state: Path) -> list[str]:
    with closing(sqlite3.connect(state / "catalog.sqlite")) as database:
        return [number for (number,) in database.execute("SELECT id FROM token_uses ORDER BY time")]


def test_the_use_of_a_revoked_token_goes_with_it(catalog: Catalog, tmp_path: Path) -> None:
    keep_used(catalog, "one")
    other = keep_used(catalog, "other")
    catalog.tokens.revoke("one", None)
    assert read_uses(tmp_path) == [other]


def test_the_use_of_an_expired_token_goes_with_it(catalog: Catalog, tmp_path: Path) -> None:
    """Which is when the next one is made."""
    old = keep_used(catalog, "old", NOW - timedelta(days=30))
    assert read_uses(tmp_path) == [old]
    new = keep_used(catalog, "new")
    assert read_uses(tmp_path) == [new]

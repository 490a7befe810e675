"""Used identities: taken once, by whichever process and after whatever restart, and forgotten when they end."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from pypiserver_ng.catalog import Catalog
from pypiserver_ng.catalog.schema import used_identities

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    catalog = Catalog(tmp_path)
    yield catalog
    catalog.close()


def read_keys(catalog: Catalog) -> set[str]:
    with catalog._database.reading() as connection:
        return set(connection.scalars(select(used_identities.c.key)))


def test_each_is_taken_once(catalog: Catalog) -> None:
    """Others are others."""
    assert catalog.identities.spend("one", LATER, NOW)
    assert not catalog.identities.spend("one", LATER, NOW)
    assert catalog.identities.spend("two", LATER, NOW)


def test_of_many_at_once_one_succeeds(catalog: Catalog, tmp_path: Path) -> None:
    """In two processes' catalogs, and after both were closed."""
    other = Catalog(tmp_path)
    with ThreadPoolExecutor(8) as threads:
        taken = list(
            threads.map(lambda number: (catalog, other)[number % 2].identities.spend("one", LATER, NOW), range(16))
        )
    other.close()
    assert sorted(taken) == [False] * 15 + [True]
    again = Catalog(tmp_path)
    assert not again.identities.spend("one", LATER, NOW)
    again.close()


def test_what_ended_is_forgotten(catalog: Catalog) -> None:
    """Nobody takes a token that has ended, so that its key is of no use any more."""
    assert catalog.identities.spend("one", LATER, NOW)
    assert not catalog.identities.spend("one", LATER, LATER)
    assert catalog.identities.spend("two", LATER + timedelta(minutes=5), LATER + timedelta(seconds=1))
    assert read_keys(catalog) == {"two"}


def test_no_page_is_made_again_for_it(catalog: Catalog) -> None:
    """It changes nothing that readers follow."""
    before = catalog.serial()
    catalog.identities.spend("one", LATER, NOW)
    assert catalog.serial() == before

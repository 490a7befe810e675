"""Identity tokens that were changed for tokens of this index: none is taken twice, by whatever process."""

from datetime import datetime

from sqlalchemy import delete
from sqlalchemy.dialects.sqlite import insert as upsert

from pypiserver_ng.catalog.database import Database
from pypiserver_ng.catalog.rows import to_microseconds
from pypiserver_ng.catalog.schema import used_identities


class Identities:
    """One catalog's used identities, known until they end by themselves."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def spend(self, key: str, expires: datetime, now: datetime) -> bool:
        """Note it as used; false where it was before. Raises Unavailable."""
        row = {"key": key, "expires": to_microseconds(expires)}
        with self._database.aside() as connection:
            connection.execute(delete(used_identities).where(used_identities.c.expires < to_microseconds(now)))
            return connection.execute(upsert(used_identities).on_conflict_do_nothing(), row).rowcount == 1

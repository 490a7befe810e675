"""What tests do to a catalog one by one, which the program does to many at once, and what they ask it."""

from pypiserver_ng.catalog import Arrival, Catalog, Contents, Presence
from pypiserver_ng.model import NormalizedName


def add_upload(
    catalog: Catalog,
    presence: Presence,
    contents: Contents,
    user: str | None,
    *,
    overwrite: bool = False,
    provenance: bytes | None = None,
) -> None:
    """Record one upload. Raises why it is refused."""
    (refusal,) = catalog.add_uploads([Arrival(presence, contents, user, provenance)], overwrite=overwrite)
    if refusal is not None:
        raise refusal


def tombstone(catalog: Catalog, filename: str) -> str | None:
    """The sha256 that a deleted name had."""
    return catalog.outlook(NormalizedName("any"), filename).buried

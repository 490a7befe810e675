"""Finds local projects by their names and summaries, and the newest. Blocking, called in threads."""

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from operator import attrgetter

from pypiserver_ng.catalog import Catalog
from pypiserver_ng.filenames import newest_version
from pypiserver_ng.model import Found, NormalizedName

#: Whether a project may be listed for who asks.
Shows = Callable[[NormalizedName], bool]


def search_projects(
    catalog: Catalog, terms: Sequence[str], limit: int | None, shows: Shows | None = None
) -> tuple[list[Found], int]:
    """Projects whose name or summary holds one of the terms, each in its newest version, by name.

    With a limit, only the first of them, so that not more is read; and how many there are together.
    """
    lowered = [term.lower() for term in terms]
    names = catalog.search(lowered)
    if shows is not None:
        names = [name for name in names if shows(name)]
    rows = groupby(catalog.found(names[:limit], lowered), attrgetter("name"))
    found = [_choose_newest({row.version: row for row in versions}) for _, versions in rows]
    return found, len(found) + len(names[len(names[:limit]) :])


def list_recent(catalog: Catalog, limit: int, shows: Shows | None = None) -> list[Found]:
    """The projects with the newest files, each once, the newest first; what is yanked is left out."""
    newest: dict[NormalizedName, Found] = {}
    count = limit * 4
    while True:
        rows = catalog.recent(count)
        for row in rows:
            if not row.yanked and (shows is None or shows(row.name)):
                newest.setdefault(row.name, row)
        if shows is None or len(newest) >= limit or len(rows) < count:
            return list(newest.values())[:limit]
        # Most of the newest are not for who asks.
        count *= 8


def _choose_newest(versions: Mapping[str, Found]) -> Found:
    """The newest version that is not yanked, if there is one."""
    offered = [version for version, found in versions.items() if not found.yanked]
    return versions[newest_version(offered or versions)]

"""Finds local projects by their names and summaries, and the newest. Blocking, called in threads."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import attrgetter

from pypiserver_ng.catalog import Catalog
from pypiserver_ng.filenames import newest_version
from pypiserver_ng.model import Found, NormalizedName


def search_projects(catalog: Catalog, terms: Sequence[str], limit: int | None) -> tuple[list[Found], int]:
    """Projects whose name or summary holds one of the terms, each in its newest version, by name.

    With a limit, only the first of them, so that not more is read; and how many there are together.
    """
    lowered = [term.lower() for term in terms]
    names = catalog.search(lowered)
    rows = groupby(catalog.found(names[:limit], lowered), attrgetter("name"))
    found = [_choose_newest({row.version: row for row in versions}) for _, versions in rows]
    return found, len(found) + len(names[len(names[:limit]) :])


def list_recent(catalog: Catalog, limit: int) -> list[Found]:
    """The projects with the newest files, each once, the newest first; what is yanked is left out."""
    newest: dict[NormalizedName, Found] = {}
    for row in catalog.recent(limit * 4):
        if not row.yanked:
            newest.setdefault(row.name, row)
    return list(newest.values())[:limit]


def _choose_newest(versions: Mapping[str, Found]) -> Found:
    """The newest version that is not yanked, if there is one."""
    offered = [version for version, found in versions.items() if not found.yanked]
    return versions[newest_version(offered or versions)]

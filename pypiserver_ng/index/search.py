"""Finds local projects by their names and summaries, and the newest, as far as a caller may see them.

Blocking, called in threads, but for `narrow`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from operator import attrgetter

from pypiserver_ng.catalog import Catalog
from pypiserver_ng.filenames import newest_version
from pypiserver_ng.model import Found, NormalizedName, Project, Sight


def search_projects(
    catalog: Catalog, terms: Sequence[str], limit: int | None, sight: Sight | None = None
) -> tuple[list[Found], int]:
    """Projects whose name or summary holds one of the terms, each in its newest version, by name.

    With a limit, only the first of them, so that not more is read; and how many there are together.
    """
    lowered = [term.lower() for term in terms]
    names = catalog.search(lowered)
    if sight is not None:
        names = [name for name in names if sight.shows(name)]
    rows = groupby(catalog.found(names[:limit], lowered), attrgetter("name"))
    groups = [{row.version: row for row in versions if _is_seen(row.version, sight)} for _, versions in rows]
    found = [_choose_newest(versions) for versions in groups if versions]
    return found, len(found) + len(names[len(names[:limit]) :])


def list_recent(catalog: Catalog, limit: int, sight: Sight | None = None) -> list[Found]:
    """The projects with the newest files, each once, the newest first; what is yanked is left out."""
    newest: dict[NormalizedName, Found] = {}
    count = limit * 4
    while True:
        rows = catalog.recent(count)
        for row in rows:
            if not row.yanked and (sight is None or (sight.shows(row.name) and _is_seen(row.version, sight))):
                newest.setdefault(row.name, row)
        if sight is None or len(newest) >= limit or len(rows) < count:
            return list(newest.values())[:limit]
        # Most of the newest are not for who asks.
        count *= 8


def narrow(project: Project, sight: Sight | None) -> Project:
    """The project as one caller sees it."""
    if sight is None or sight.reaches is None:
        return project
    return replace(project, files=tuple(file for file in project.files if _is_seen(file.version, sight)))


def _is_seen(version: str, sight: Sight | None) -> bool:
    return sight is None or sight.reaches is None or sight.reaches(version)


def _choose_newest(versions: Mapping[str, Found]) -> Found:
    """The newest version that is not yanked, if there is one."""
    offered = [version for version, found in versions.items() if not found.yanked]
    return versions[newest_version(offered or versions)]

"""Projects by the words of their names and summaries, and the newest files, each in the caller's transaction.

Words are looked for in a table of their own, with one row for each text that a project's files have: ten versions
mostly have one summary. What it has of files that are gone is harmless, because rows are asked again.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, delete, exists, func, or_, select
from sqlalchemy.dialects.sqlite import insert as upsert

from pypiserver_ng.catalog.prepared import Prepared
from pypiserver_ng.catalog.rows import from_microseconds
from pypiserver_ng.catalog.schema import files, projects, texts, yanks
from pypiserver_ng.filenames import release_key
from pypiserver_ng.model import Found, NormalizedName, Status

_COLUMNS = (files.c.project, files.c.display_name, files.c.version, files.c.summary, files.c.upload_time)
_IS_READ = files.c.sha256.is_not(None)
#: A list as JSON, so that the statement is the same for any number.
_NAMES = select(func.json_each(bindparam("names")).table_valued("value").c.value)
_FOUND_OF = Prepared(select(*_COLUMNS).where(_IS_READ & files.c.project.in_(_NAMES)).order_by(files.c.project))
_YANKED_OF = Prepared(select(yanks.c.project, yanks.c.version).where(yanks.c.project.in_(_NAMES)))
_TELL = Prepared(upsert(texts).on_conflict_do_nothing(), texts.columns.keys())
_FORGET = Prepared(
    delete(texts).where(
        texts.c.project.in_(select(projects.c.name).where(projects.c.name.in_(_NAMES), projects.c.files == 0))
    )
)


def write_text(name: str, display_name: str, summary: str | None) -> str:
    """What words are looked for in. No term has a line's end."""
    return f"{name}\n{display_name}\n{summary or ''}".lower()


def tell(connection: Connection, told: Iterable[tuple[str, str, str | None]]) -> None:
    """Names, display names and summaries of files that were read."""
    rows = [{"project": name, "text": write_text(name, shown, summary)} for name, shown, summary in set(told)]
    if rows:
        _TELL.each(connection, rows)


def forget_empty(connection: Connection, names: Iterable[str]) -> None:
    """Those of the projects that have no file any more have no text either."""
    _FORGET.each(connection, [{"names": json.dumps(sorted(names))}])


def find_names(connection: Connection, terms: Sequence[str]) -> list[NormalizedName]:
    """Projects that are not quarantined and may have one of the terms, in lower case, by name; all without terms."""
    hidden = select(projects.c.name).where(projects.c.status == Status.QUARANTINED)
    query = select(texts.c.project).distinct().where(texts.c.project.not_in(hidden)).order_by(texts.c.project)
    if terms:
        query = query.where(or_(*(func.instr(texts.c.text, term) > 0 for term in terms)))
    return [NormalizedName(name) for name in connection.scalars(query)]


def read_found(connection: Connection, names: Sequence[str], terms: Sequence[str]) -> list[Found]:
    """Every file of these projects that has one of the terms, by project."""
    rows = _FOUND_OF.rows(connection, names=json.dumps(names))
    return _describe(connection, [row for row in rows if _holds(row, terms)])


def read_newest(connection: Connection, limit: int) -> list[Found]:
    """The newest files of projects that are not quarantined, the newest first."""
    is_hidden = exists().where((projects.c.name == files.c.project) & (projects.c.status == Status.QUARANTINED))
    query = select(*_COLUMNS).where(_IS_READ & ~is_hidden).order_by(files.c.upload_time.desc()).limit(limit)
    return _describe(connection, connection.execute(query).all())


def _holds(row: Any, terms: Sequence[str]) -> bool:
    text = write_text(row.project, row.display_name, row.summary) if terms else ""
    return not terms or any(term in text for term in terms)


def _describe(connection: Connection, rows: Sequence[Any]) -> list[Found]:
    names = json.dumps(sorted({row.project for row in rows}))
    yanked = {(row.project, row.version) for row in _YANKED_OF.rows(connection, names=names)}
    return [
        Found(
            NormalizedName(row.project),
            row.display_name,
            row.version,
            row.summary,
            from_microseconds(row.upload_time),
            bool(yanked) and (row.project, release_key(row.version)) in yanked,
        )
        for row in rows
    ]

"""A project as it is offered: what its upstream says, what is local, and what the policy lets be seen. No I/O.

Blocking for large projects, so meant for a thread.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import PurePosixPath

from pypiserver_ng.filenames import parse_found, release_key, sort_key
from pypiserver_ng.index.explanation import Explanation, explain_judged, explain_offered, sort_files
from pypiserver_ng.index.mirror.pages import Kept
from pypiserver_ng.index.mirror.record import Record, describe
from pypiserver_ng.index.pagecache import Bodies, Entry
from pypiserver_ng.model import (
    Kind,
    Listed,
    NormalizedName,
    ParsedFilename,
    Project,
    Status,
    UpstreamFile,
    UpstreamPage,
)
from pypiserver_ng.policy import Decision, Policy, Verdict, describe_status
from pypiserver_ng.storage import Stamp
from pypiserver_ng.upstream.addresses import Upstream

OTHER_BYTES = "its upstream offers other bytes under this name than were first seen"
NEVER = float("inf")

#: Whether a file's bytes are here.
IsKept = Callable[[Record, UpstreamFile], bool]


@dataclass(frozen=True, slots=True)
class Source:
    """The upstream that answers for a project, and what it says."""

    upstream: Upstream
    kept: Kept


@dataclass(slots=True)
class Shelf:
    """A project as it is offered, and until when that is so."""

    project: Project
    withheld: tuple[tuple[UpstreamFile, Verdict], ...]
    source: Source | None
    #: What it was made of; it is right as long as that is the same.
    facts: "Facts"
    #: When it changes by the clock alone (seconds since 1970).
    until: float
    #: Nothing has to be asked before that moment,
    fresh_until: float = 0.0
    #: unless the cache has another generation by then.
    generation: int = 0
    bodies: Bodies = field(default_factory=Bodies)


@dataclass(frozen=True, slots=True)
class Facts:
    """What a view is made of, by identity or number."""

    #: Of the local project that is merged into it.
    serial: int | None
    policy: Policy
    decision: Decision
    upstream: str
    stamp: Stamp


def build_shelf(
    name: NormalizedName,
    facts: Facts,
    source: Source | None,
    local: Entry | None,
    now: datetime,
    is_kept: IsKept,
    *,
    is_offline: bool,
) -> Shelf:
    """`local` is what is merged with what the upstream has, if anything is."""
    record = source.kept.record if source else None
    page = record.page if record and record.page else UpstreamPage(())
    hidden = tell_files(local)
    view = facts.policy.view(name, [file for file in page.files if tell_file(file) not in hidden], now)
    offered, withheld = view.offered, view.withheld
    if record is not None:
        offered, spoilt = _part(record, offered, is_kept)
        withheld += spoilt
        offered = tuple(describe(record, file) for file in offered if not is_offline or is_kept(record, file))
    if page.status is Status.QUARANTINED:
        offered = ()
    here = local.project.files if local else ()
    listed: list[Listed] = [*here, *offered]
    if here and offered:
        listed.sort(key=lambda file: (sort_key(file.version), file.filename))
    said = local.project if local else page
    project = Project(
        name,
        listed[-1].display_name if listed else name,
        local.project.serial if local else 0,
        tuple(listed),
        said.status,
        said.status_reason,
    )
    return Shelf(project, withheld, source, facts, view.until.timestamp() if view.until else NEVER)


def _part(
    record: Record, files: tuple[UpstreamFile, ...], is_kept: IsKept
) -> tuple[tuple[UpstreamFile, ...], tuple[tuple[UpstreamFile, Verdict], ...]]:
    """Files whose bytes were replaced upstream are offered only where the first ones are here."""
    if not record.refused:
        return files, ()
    verdict = Verdict(is_offered=False, rule="first seen", reason=OTHER_BYTES, until=None)
    spoilt = {file.filename: file for file in files if file.filename in record.refused and not is_kept(record, file)}
    offered = tuple(file for file in files if file.filename not in spoilt)
    return offered, tuple((file, verdict) for file in spoilt.values())


def explain_shelf(shelf: Shelf, now: datetime) -> Explanation:
    """What became of every file of a project."""
    project, facts = shelf.project, shelf.facts
    offered = [file for file in project.files if isinstance(file, UpstreamFile)]
    files = [
        *explain_offered([file for file in project.files if not isinstance(file, UpstreamFile)], facts.decision),
        *explain_judged(facts.policy.judge_all(project.name, offered, now)),
        *explain_judged(shelf.withheld),
    ]
    status = describe_status(project.name, project.status, project.status_reason)
    note = None if project.status is Status.ACTIVE else status
    upstream = shelf.source.upstream.name if shelf.source else None
    return Explanation(project.name, facts.decision, upstream, sort_files(files), note)


def tell_file(file: Listed | ParsedFilename) -> tuple[str, ...]:
    """What files have in common that are the same distribution in two spellings of its name."""
    if file.kind is Kind.WHEEL:
        return (release_key(file.version), *file.filename.lower().split("-")[2:])
    return release_key(file.version), PurePosixPath(file.filename.lower()).suffix


def tell_files(local: Entry | None) -> set[tuple[str, ...]]:
    """The same for all files of a local project, also those that are still being copied."""
    if local is None:
        return set()
    unread = (parse_found(path.rpartition("/")[2]) for path in local.unread)
    return {tell_file(file) for file in (*local.project.files, *filter(None, unread))}

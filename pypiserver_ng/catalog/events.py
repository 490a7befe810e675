"""What happened, as values: an event is written down for ever, and what it changed can be had from it again.

Uploads, deletions, yanks, statuses, provenance and tokens are known to nobody but the catalog; files, hashes and
metadata can always be read from the directories. Tables of the former change only by applying events.
"""

from collections.abc import Callable, Sequence
from typing import Annotated

import msgspec
from sqlalchemy import Connection, Table, bindparam, delete, func, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from pypiserver_ng.catalog.prepared import Prepared
from pypiserver_ng.catalog.schema import events, projects, provenances, token_uses, tokens, tombstones, uploads, yanks
from pypiserver_ng.filenames import release_key
from pypiserver_ng.model import Action, Status

UPLOAD = "upload"
ATTEST = "attest"
DELETE = "delete"
YANK = "yank"
UNYANK = "unyank"
STATUS = "status"
TOKEN = "token"  # noqa: S105 - a word
REVOKE = "revoke"

#: What a database can hold and nobody reaches by counting.
Number = Annotated[int, msgspec.Meta(ge=1, le=2**53)]
Moment = Annotated[int, msgspec.Meta(ge=0, le=2**63 // 1000)]

#: Microseconds for which an expired token is still listed: a week.
_KEPT_EXPIRED = 7 * 86_400 * 10**6


class TokenFacts(msgspec.Struct, frozen=True, omit_defaults=True):
    """A token, or which one: what it is found and called by."""

    id: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{16}\Z")]
    name: str
    #: sha256 of its secret, in hex; empty where only the token is named.
    hash: str = ""
    projects: tuple[str, ...] = ()
    actions: tuple[Action, ...] = ()
    expires: Moment | None = None
    until_version: str | None = None


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """One change. Which fields an action has is in the function that applies it."""

    #: Rises with every event; 0 until it is recorded.
    id: int
    #: Microseconds since 1970, UTC.
    time: Moment
    action: str
    project: str
    #: Who did it, as far as that is known.
    user: str | None = None
    #: From where; None where a command did it on the machine itself.
    address: str | None = None
    version: str | None = None
    filename: str | None = None
    sha256: str | None = None
    #: Of an upload: when the file was last written, in microseconds since 1970.
    upload_time: Moment | None = None
    #: The provenance object, as JSON text.
    provenance: str | None = None
    status: str | None = None
    reason: str | None = None
    token: TokenFacts | None = None

    @property
    def must_last(self) -> bool:
        """Whether it is in no file: an upload without provenance can be had from the directory again."""
        return self.action != UPLOAD or self.provenance is not None


class _Numbered(msgspec.Struct, frozen=True):
    id: Number


_decoder = msgspec.json.Decoder(Event)
_number_decoder = msgspec.json.Decoder(_Numbered)


def encode_event(event: Event) -> bytes:
    """One line of JSON, without its end."""
    return msgspec.json.encode(event)


def decode_event(line: bytes) -> Event:
    """Raises ValueError where the line is none, or has not what its action needs."""
    try:
        event = _decoder.decode(line)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not 1 <= event.id <= 2**53:
        raise ValueError(f"the number {event.id} is out of range")
    if event.action not in _APPLY:
        raise ValueError(f"the action {event.action!r} is not known")
    if missing := [name for name in _NEEDS[event.action] if getattr(event, name) is None]:
        raise ValueError(f"{missing[0]!r} is missing")
    if event.action == STATUS:
        Status(event.status or "")
    return event


def decode_number(line: bytes) -> int:
    """The number of an event, also of one that a later version wrote. Raises ValueError."""
    try:
        return _number_decoder.decode(line).id
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def record_events(connection: Connection, recorded: Sequence[Event]) -> list[Event]:
    """Write events of one action down and apply them; returns them with their numbers.

    Those that have numbers already keep them.
    """
    if not recorded[0].id:
        first = last_event(connection) + 1
        recorded = [msgspec.structs.replace(event, id=number) for number, event in enumerate(recorded, first)]
    _INSERT.each(connection, [{"id": event.id, "content": encode_event(event)} for event in recorded])
    _APPLY[recorded[0].action](connection, recorded)
    return list(recorded)


def last_event(connection: Connection) -> int:
    """The highest number, or 0."""
    return _LAST.scalar(connection) or 0


def event_numbers(connection: Connection) -> set[int]:
    """The numbers of all events."""
    return set(connection.scalars(select(events.c.id)))


def read_event(content: bytes) -> Event:
    """One that the catalog has."""
    return _decoder.decode(content)


def events_since(connection: Connection, number: int) -> list[Event]:
    """Events with a higher number, in order."""
    query = select(events.c.content).where(events.c.id > number).order_by(events.c.id)
    return [read_event(content) for content in connection.scalars(query)]


def _each(apply: Callable[[Connection, Event], None]) -> Callable[[Connection, Sequence[Event]], None]:
    """For what is rarely many."""

    def apply_each(connection: Connection, applied: Sequence[Event]) -> None:
        for event in applied:
            apply(connection, event)

    return apply_each


def _apply_uploads(connection: Connection, applied: Sequence[Event]) -> None:
    _PUT_UPLOAD.each(
        connection,
        [
            {"filename": event.filename, "sha256": event.sha256, "upload_time": event.upload_time, "user": event.user}
            for event in applied
        ],
    )
    _UNBURY.each(connection, [{"filename": event.filename} for event in applied])
    for event in applied:
        if event.provenance is not None:
            _apply_provenance(connection, event)


def _apply_provenance(connection: Connection, event: Event) -> None:
    content = (event.provenance or "").encode()
    row = {"filename": event.filename, "sha256": event.sha256, "project": event.project, "content": content}
    # What was verified first stays: a repeated upload adds nothing.
    connection.execute(upsert(provenances).on_conflict_do_nothing(), [row])


def _apply_delete(connection: Connection, event: Event) -> None:
    gone = (provenances.c.filename == event.filename) & (provenances.c.sha256 == event.sha256)
    connection.execute(delete(provenances).where(gone))
    row = {"filename": event.filename, "sha256": event.sha256, "deleted_at": event.time}
    connection.execute(upsert(tombstones).on_conflict_do_nothing(), [row])


def _apply_yank(connection: Connection, event: Event) -> None:
    row = {"project": event.project, "version": release_key(event.version or ""), "reason": event.reason}
    _PUT_YANK.each(connection, [row])


def _apply_unyank(connection: Connection, event: Event) -> None:
    release = (yanks.c.project == event.project) & (yanks.c.version == release_key(event.version or ""))
    connection.execute(delete(yanks).where(release))


def _apply_status(connection: Connection, event: Event) -> None:
    values = {"status": Status(event.status or "").value, "status_reason": event.reason}
    row = {"name": event.project, "serial": 0, "files": 0}
    connection.execute(upsert(projects).on_conflict_do_nothing(), [row])
    connection.execute(update(projects).where(projects.c.name == event.project).values(values))


def _put(table: Table) -> Prepared:
    """A statement that takes whole rows; the newest of a key stays."""
    statement = upsert(table)
    keys = [column.name for column in table.primary_key]
    values = {column.name: statement.excluded[column.name] for column in table.columns if not column.primary_key}
    return Prepared(statement.on_conflict_do_update(index_elements=keys, set_=values), table.columns.keys())


def _apply_token(connection: Connection, event: Event) -> None:
    assert event.token is not None
    facts = event.token
    # Those that expired a while ago are of no interest to anybody, nor are those that no person made. Others of this
    # name are replaced.
    is_unlisted = tokens.c.name.contains(":") | (tokens.c.name == facts.name)
    old = (tokens.c.expires < event.time - _KEPT_EXPIRED) | (is_unlisted & (tokens.c.expires < event.time))
    connection.execute(delete(tokens).where(old))
    connection.execute(delete(token_uses).where(token_uses.c.id.not_in(select(tokens.c.id))))
    row = {"id": facts.id, "name": facts.name, "created": event.time, "expires": facts.expires}
    connection.execute(upsert(tokens).on_conflict_do_nothing(), [row | {"content": msgspec.json.encode(facts)}])


def _apply_revoke(connection: Connection, event: Event) -> None:
    assert event.token is not None
    connection.execute(delete(tokens).where(tokens.c.id == event.token.id))
    connection.execute(delete(token_uses).where(token_uses.c.id == event.token.id))


_NEEDS: dict[str, tuple[str, ...]] = {
    UPLOAD: ("filename", "sha256", "upload_time"),
    ATTEST: ("filename", "sha256", "provenance"),
    DELETE: ("filename", "sha256"),
    YANK: ("version",),
    UNYANK: ("version",),
    STATUS: ("status",),
    TOKEN: ("token",),
    REVOKE: ("token",),
}
_APPLY: dict[str, Callable[[Connection, Sequence[Event]], None]] = {
    UPLOAD: _apply_uploads,
    ATTEST: _each(_apply_provenance),
    DELETE: _each(_apply_delete),
    YANK: _each(_apply_yank),
    UNYANK: _each(_apply_unyank),
    STATUS: _each(_apply_status),
    TOKEN: _each(_apply_token),
    REVOKE: _each(_apply_revoke),
}

_INSERT = Prepared(events.insert(), events.columns.keys())
_LAST = Prepared(select(func.max(events.c.id)))
#: Some of them: one with provenance may be long.
EVENTS_AFTER = Prepared(
    select(events.c.id, events.c.content).where(events.c.id > bindparam("last")).order_by(events.c.id).limit(200)
)
_PUT_UPLOAD = _put(uploads)
_PUT_YANK = _put(yanks)
_UNBURY = Prepared(delete(tombstones).where(tombstones.c.filename == bindparam("filename")))

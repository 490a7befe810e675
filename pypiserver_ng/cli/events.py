"""`events`: who did what, from where and with what outcome; who was refused, and why."""

import json
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from pypiserver_ng.cli.curating import become_owner
from pypiserver_ng.cli.options import check_directories, load_config, with_settings
from pypiserver_ng.config.entries import parse_moment
from pypiserver_ng.config.values import parse_duration, parse_glob
from pypiserver_ng.errors import Invalid
from pypiserver_ng.logs import configure_logs, escape

if TYPE_CHECKING:
    from pypiserver_ng.index.history import History
    from pypiserver_ng.storage.audit import Entry

_SETTINGS = ("packages", "state-dir")
#: What a person gets who did not say how many.
_FEW = 100
#: Seconds between two looks.
_PAUSE = 0.5
_HEADINGS = ("TIME", "ACTION", "OUTCOME", "USER", "ADDRESS", "WHAT", "WHY")


def _parse_projects(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    try:
        return None if value is None else parse_glob(value)
    except Invalid as fault:
        raise click.BadParameter(fault.message) from None


def _parse_since(_context: click.Context, _parameter: click.Parameter, value: str | None) -> datetime | None:
    if value is None:
        return None
    try:
        return datetime.now(UTC) - timedelta(seconds=parse_duration(value))
    except OverflowError:
        return None
    except Invalid:
        pass
    try:
        return parse_moment("since", value)
    except Invalid:
        raise click.BadParameter(
            f"must be a duration such as 7d, or a date such as 2026-12-01, not {value!a}"
        ) from None


@click.command("events")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--project", "projects", metavar="GLOB", callback=_parse_projects, help="Of these projects only.")
@click.option("--user", metavar="NAME", help="Of this user only (a token is token:NAME).")
@click.option(
    "--since", metavar="DURATION|DATE", callback=_parse_since, help="Not older than that, such as 7d or 2026-12-01."
)
@click.option(
    "--limit",
    metavar="N",
    type=click.IntRange(min=0),
    help=f"The newest N. [default: {_FEW}, with --json all]",
)
@click.option("--follow", is_flag=True, help="Go on with what happens, until Ctrl-C.")
@with_settings(_SETTINGS)
def command(
    config: str | None,
    packages: Any,
    state_dir: Any,
    projects: str | None,
    user: str | None,
    since: datetime | None,
    limit: int | None,
    *,
    as_json: bool,
    follow: bool,
) -> None:
    """Say who did what, when, from where and with what outcome: uploads, deletions, yanks, statuses, and refusals."""
    from pypiserver_ng.index.history import Selection

    selection = Selection(projects, user, since)
    with _open(config, packages, state_dir) as history:
        entries = selection.choose(history.read())
        most = limit if limit is not None or as_json else _FEW
        table = _Table()
        say = _say_json if as_json else table.say
        say(entries if most is None else deque(entries, most))
        while follow:
            time.sleep(_PAUSE)
            say(selection.choose(history.read()))


@contextmanager
def _open(file: str | None, packages: Any, state_dir: Any) -> Iterator["History"]:
    from pypiserver_ng.index.history import History

    config = load_config(file, {"packages": packages, "state_dir": state_dir})
    check_directories(config)
    configure_logs(verbosity=0, stream="stderr", file=None, style="text")
    try:
        become_owner(config)
        if not (config.state_dir / "catalog.sqlite").exists():
            raise Invalid(f"there is no catalog in {config.state_dir}: name the server's directories")
        with closing(History(config.state_dir)) as history:
            yield history
    except BrokenPipeError:
        # Whoever reads what is said has seen enough.
        raise
    except OSError as fault:
        raise Invalid(f"cannot use {fault.filename or config.state_dir}: {fault.strerror}; see --state-dir") from None


def _say_json(entries: Iterable["Entry"]) -> None:
    for entry in entries:
        # ASCII: whatever somebody put into a name, a terminal is shown no control character.
        click.echo(json.dumps(describe(entry)))


def describe(entry: "Entry") -> dict[str, Any]:
    """As one object; the first ten keys are always there."""
    keys = ("action", "outcome", "user", "address", "project", "version", "filename", "sha256", "reason")
    described: dict[str, Any] = {"time": entry.time.isoformat(timespec="milliseconds").replace("+00:00", "Z")}
    described |= {key: getattr(entry, key) for key in keys}
    described |= {key: value for key in ("status", "token") if (value := getattr(entry, key)) is not None}
    if entry.count > 1:
        described["count"] = entry.count
    return described


class _Table:
    """Columns as wide as what came first needs them."""

    def __init__(self) -> None:
        self._widths: Sequence[int] = ()

    def say(self, entries: Iterable["Entry"]) -> None:
        rows = [_to_row(entry) for entry in entries]
        if not rows:
            return
        if not self._widths:
            rows.insert(0, _HEADINGS)
            self._widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = (cell.ljust(width) for cell, width in zip(row, self._widths, strict=True))
            click.echo("  ".join(cells).rstrip())


def _to_row(entry: "Entry") -> tuple[str, ...]:
    what = entry.filename or entry.token or " ".join(filter(None, (entry.project, entry.version)))
    why = ": ".join(filter(None, (entry.status, entry.reason)))
    if entry.count > 1:
        why = f"{why} ({entry.count} times)".strip()
    moment = entry.time.strftime("%Y-%m-%dT%H:%M:%SZ")
    cells = (moment, entry.action, entry.outcome, entry.user or "-", entry.address or "-", what or "-", why)
    return tuple(escape(cell) for cell in cells)

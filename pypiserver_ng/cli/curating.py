"""What the commands that work on an index have in common: which one, as whom, and how far they are."""

import functools
import getpass
import os
import pwd
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from pypiserver_ng.cli.options import check_directories, load_config, with_settings
from pypiserver_ng.config import Config
from pypiserver_ng.errors import Invalid
from pypiserver_ng.model import NormalizedName, is_project_name, normalize_name

if TYPE_CHECKING:
    from pypiserver_ng.index.curation import Curator

_SETTINGS = ("packages", "state-dir")
_LONGEST_REASON = 500
_LONGEST_VERSION = 255


def curating(*, may_create: bool = True) -> Callable[[Callable[..., int | None]], Callable[..., Any]]:
    """Turn a function of a Curator and further arguments into one of --config, --state-dir and PACKAGE_DIR.

    What the command needs to know of the directories it has the Curator learn first: there may be no server that does.
    """

    def decorate(command: Callable[..., int | None]) -> Callable[..., Any]:
        @functools.wraps(command)
        def with_curator(config: str | None, packages: Any, state_dir: Any, **arguments: Any) -> int | None:
            found = load_config(config, {"packages": packages, "state_dir": state_dir})
            check_directories(found)
            with _open(found, may_create=may_create) as curator:
                return command(curator, **arguments)

        return with_settings(_SETTINGS)(with_curator)

    return decorate


@contextmanager
def _open(config: Config, *, may_create: bool) -> Iterator["Curator"]:
    from pypiserver_ng.app import open_curator
    from pypiserver_ng.logs import configure_logs

    configure_logs(verbosity=0, stream="stderr", file=None, style="text")
    note = ""
    try:
        become_owner(config)
        if not (config.state_dir / "catalog.sqlite").exists():
            if not may_create:
                raise Invalid(f"there is no catalog in {config.state_dir}: name the server's directories")
            note = f"note: {config.state_dir} is new; a server with another --state-dir sees nothing of this"
        with open_curator(config) as curator:
            yield curator
        if note:
            click.echo(note, err=True)
    except OSError as fault:
        raise Invalid(f"cannot use {fault.filename or config.state_dir}: {fault.strerror}; see --state-dir") from None


def become_owner(config: Config) -> None:
    """Act as whoever owns the state: files that root leaves there would be closed to the server."""
    if os.geteuid() != 0:
        return
    owned = config.state_dir if config.state_dir.exists() else config.packages[0]
    owner = owned.stat()
    if owner.st_uid == 0:
        return
    try:
        user = pwd.getpwuid(owner.st_uid)
    except KeyError:
        # Containers run as numbers that have no name.
        os.setgroups([])
        os.setgid(owner.st_gid)
    else:
        os.initgroups(user.pw_name, user.pw_gid)
        os.setgid(user.pw_gid)
    os.setuid(owner.st_uid)


def current_user() -> str:
    """Who works at the command line, for the journal."""
    try:
        name = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        name = str(os.getuid())
    return f"{name} (command line)"


def parse_name(_context: click.Context, _parameter: click.Parameter, value: str) -> NormalizedName:
    """The normalized form of a NAME argument."""
    if not is_project_name(value):
        raise click.BadParameter(f"{value[:100]!a} is not a project name")
    return normalize_name(value)


def parse_version(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    """A VERSION argument, in any spelling."""
    text = value.strip()
    if not text.isprintable() or not 0 < len(text) <= _LONGEST_VERSION:
        raise click.BadParameter(f"{value[:100]!a} is not a version")
    return text


def parse_release(context: click.Context, parameter: click.Parameter, value: str) -> tuple[NormalizedName, str | None]:
    """A NAME or NAME==VERSION argument."""
    name, is_pinned, version = value.partition("==")
    return (
        parse_name(context, parameter, name.strip()),
        parse_version(context, parameter, version) if is_pinned else None,
    )


def parse_reason(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """A reason is one line of text; an empty one is none."""
    if value is not None and (not value.isprintable() or len(value) > _LONGEST_REASON):
        raise click.BadParameter(f"a reason is one line of at most {_LONGEST_REASON} characters")
    return (value or "").strip() or None


name_argument = click.argument("name", callback=parse_name, metavar="NAME")
version_argument = click.argument("version", metavar="VERSION", callback=parse_version)
release_argument = click.argument("release", metavar="NAME[==VERSION]", callback=parse_release)
reason_option = click.option(
    "--reason", metavar="TEXT", help="One sentence for those who meet it.", callback=parse_reason
)


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar of `total` bytes on a terminal; it goes when the work is done. Elsewhere nothing."""
    if not sys.stderr.isatty():
        yield lambda _count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)

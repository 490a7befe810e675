"""What the commands that bring files of upstreams have in common: settings, a bar, and what they say at the end."""

import asyncio
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pypiserver_ng.cli.curating import become_owner
from pypiserver_ng.cli.options import check_directories, load_config, say_error, with_settings
from pypiserver_ng.config import Config
from pypiserver_ng.errors import Failure, Invalid
from pypiserver_ng.logs import configure_logs, escape
from pypiserver_ng.model import Mode, NormalizedName
from pypiserver_ng.policy import Origin

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from pypiserver_ng.index.bringing import Bringer, Outcome, Progress
    from pypiserver_ng.index.lockfiles import Wanted

    MakeApp = Callable[[], ASGIApp]

_T = TypeVar("_T")

EXIT_FAILED = 1

_SETTINGS = (
    "state-dir",
    "disable-fallback",
    "fallback-url",
    "fallback-mode",
    "reserve",
    "merge",
    "cooldown",
    "osv",
    "offline",
    "cache-size",
    "verbose",
)


class SplitCommand(click.Command):
    """One whose last arguments are package directories: what follows `--`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        before, after = args, []
        if "--" in args:
            position = args.index("--")
            before, after = args[:position], args[position + 1 :]
        rest = super().parse_args(ctx, before)
        ctx.params["packages"] = tuple(after)
        return rest

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "[-- PACKAGE_DIR...]"]


def with_bringing_settings(command: Callable[..., Any]) -> Callable[..., Any]:
    return with_settings(_SETTINGS, is_caching=True)(command)


def with_targets(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --python and --platform to a command's parameters."""
    platform = click.option(
        "--platform",
        "platforms",
        multiple=True,
        metavar="PLATFORM",
        help="For this platform, as wheels name it: manylinux_2_28_x86_64, macosx_14_0_arm64. May be repeated.",
    )
    python = click.option("--python", "pythons", multiple=True, metavar="X.Y", help="For this Python. May be repeated.")
    return python(platform(command))


def load_bringing_config(file: str | None, flags: Mapping[str, Any]) -> Config:
    """The server's own settings, in cache mode: everything that is brought comes through here. Raises Invalid."""
    found = load_config(file, {**flags, "fallback_mode": Mode.CACHE.value})
    found = replace(found, rules=tuple(replace(rule, mode=None) for rule in found.rules), welcome=None)
    check_directories(found)
    configure_logs(verbosity=found.verbose, stream="stderr" if found.verbose else "none", file=None, style="text")
    return found


def run_bringing(config: Config, work: Callable[["Bringer", "MakeApp"], Coroutine[Any, Any, _T]]) -> _T:
    """Act as the owner of the state, and on an index that is open. Raises Failure."""
    # All of it now: whose place is taken may not be able to read this program.
    import pypiserver_ng.index.bringing  # noqa: F401
    from pypiserver_ng.app import open_bringer

    async def act() -> _T:
        async with open_bringer(config) as (bringer, make_app):
            if not bringer.has_upstream:
                raise Invalid("there is no upstream to bring anything from: name one with --fallback-url")
            await bringer.scan()
            return await work(bringer, make_app)

    try:
        become_owner(config)
        return asyncio.run(act())
    except OSError as fault:
        raise Invalid(f"cannot use {fault.filename or config.state_dir}: {fault.strerror}; see --state-dir") from None


async def bring(bringer: "Bringer", wanted: Sequence["Wanted"], *, cache_only: bool = False) -> "Report":
    """Bring everything, with a bar on a terminal."""
    before = await bringer.local_names()
    with _showing() as progress:
        outcomes = await bringer.bring(wanted, progress, cache_only=cache_only)
    brought = sorted({one.wanted.project for one in outcomes if one.is_brought} - before)
    origins = {name: await bringer.origin(name) for name in brought}
    shadowed = [] if cache_only else [name for name in brought if origins[name] is Origin.LOCAL]
    return Report(outcomes, shadowed, cache_only=cache_only)


class Report:
    """What is said at the end."""

    def __init__(self, outcomes: Sequence["Outcome"], shadowed: Sequence[NormalizedName], *, cache_only: bool) -> None:
        self._outcomes = outcomes
        self._shadowed = shadowed
        self._where = "the cache" if cache_only else "the first package directory"

    def say(self, left_out: Sequence[str] = ()) -> int:
        """The exit code."""
        failed = [one for one in self._outcomes if one.problem]
        brought = [one for one in self._outcomes if one.is_brought]
        if not sys.stderr.isatty():
            for one in brought:
                click.echo(escape(f"brought {one.wanted.filename} ({describe_size(one.size or 0)})"))
        for line in left_out:
            click.echo(escape(f"left out: {line}"), err=True)
        for one in failed:
            say_error(f"{one.wanted.filename}: {one.problem}")
        if self._shadowed:
            click.echo(f"local from now on, so that upstream's versions are hidden: {', '.join(self._shadowed)}")
        click.echo(self._describe_totals(len(brought), sum(one.size or 0 for one in brought), len(failed)))
        return EXIT_FAILED if failed else 0

    def _describe_totals(self, brought: int, size: int, failed: int) -> str:
        here = len(self._outcomes) - brought - failed
        parts = [f"{_count(brought)} ({describe_size(size)}) brought into {self._where}"]
        parts += [f"{here} there already"] * (here > 0)
        parts += [f"{failed} failed"] * (failed > 0)
        return ", ".join(parts)


def _count(number: int) -> str:
    return f"{number} file" if number == 1 else f"{number} files"


def describe_size(count: int) -> str:
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"


def describe_coming(files: int, size: int, unknown: int) -> str:
    """What is brought next; the size as far as upstreams say it."""
    if unknown == files:
        return _count(files)
    return f"{_count(files)}, {'at least ' if unknown else ''}{describe_size(size)}"


class _Silence:
    def expect(self, files: int, size: int, unknown: int) -> None:
        """Before anybody waits: it may be more than he thought of."""
        if files:
            click.echo(f"bringing {describe_coming(files, size, unknown)}", err=True)

    def advance(self, size: int) -> None:
        """Nobody looks."""

    def finish(self) -> None:
        """Nobody looks."""


@contextmanager
def _showing() -> Iterator["Progress"]:
    """A bar of bytes and files on a terminal, elsewhere only what is coming."""
    if not sys.stderr.isatty():
        yield _Silence()
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        yield _Bar(bars)


class _Bar:
    def __init__(self, bars: Any) -> None:
        self._bars = bars
        self._task = bars.add_task("looking", total=None)
        self._files = self._done = 0

    def expect(self, files: int, size: int, unknown: int) -> None:
        self._files = files
        if files:
            self._bars.console.print(f"bringing {describe_coming(files, size, unknown)}", highlight=False)
        self._bars.update(self._task, total=size or None, description=self._describe())

    def advance(self, size: int) -> None:
        self._bars.advance(self._task, size)

    def finish(self) -> None:
        self._done += 1
        self._bars.update(self._task, description=self._describe())

    def _describe(self) -> str:
        return f"{self._done} of {_count(self._files)}"


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Say on a terminal what takes its time; it goes when that is over."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(what):
        yield


def say_failure(fault: Failure, lines: Sequence[str]) -> int:
    """More than one line, where those that matter are somebody else's."""
    for line in lines:
        click.echo(escape(line), err=True)
    say_error(fault.message)
    return EXIT_FAILED

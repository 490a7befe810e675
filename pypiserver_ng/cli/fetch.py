"""`fetch`: bring projects and what they depend on into the packages directory, or into the cache."""

import secrets
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pypiserver_ng.cli.bringing import (
    SplitCommand,
    bring,
    load_bringing_config,
    run_bringing,
    say_failure,
    waiting,
    with_bringing_settings,
    with_targets,
)
from pypiserver_ng.cli.options import is_directory
from pypiserver_ng.config import Config
from pypiserver_ng.errors import Invalid

if TYPE_CHECKING:
    from pypiserver_ng.cli.bringing import MakeApp
    from pypiserver_ng.index.bringing import Bringer
    from pypiserver_ng.index.lockfiles import Selection
    from pypiserver_ng.index.requirements import Requirements
    from pypiserver_ng.index.targets import Target


@click.command("fetch", cls=SplitCommand)
@click.argument("requirements", nargs=-1, metavar="[REQUIREMENT]...")
@click.option(
    "-r",
    "--requirement",
    "files",
    multiple=True,
    metavar="FILE",
    help="Requirements file, uv.lock or pylock.toml. May be repeated.",
)
@with_targets
@click.option("--no-deps", is_flag=True, help="Not what they depend on.")
@click.option("--cache-only", is_flag=True, help="Into the cache only, so that nothing becomes local.")
@with_bringing_settings
def command(
    requirements: tuple[str, ...],
    files: tuple[str, ...],
    pythons: tuple[str, ...],
    platforms: tuple[str, ...],
    config: str | None,
    *,
    no_deps: bool,
    cache_only: bool,
    **flags: Any,
) -> int:
    """Bring projects and their dependencies from upstream into the first package directory.

    pip (or uv) of this machine resolves the requirements, against this index and by its rules; give it the server's
    own settings. A lock file is not resolved: all its files are brought that fit, each by its hash. Projects that are
    brought are local afterwards, which hides their other versions: 'update' brings newer ones.
    """
    from pypiserver_ng.index.targets import combine_targets

    targets = combine_targets(pythons, platforms)
    _refuse_directories(requirements)
    sources = _read(requirements, files, targets)
    # A prefix that nobody else on this machine knows: what is private here stays so while it is resolved.
    found = replace(load_bringing_config(config, flags), server_base_url=f"/{secrets.token_hex(16)}")
    if cache_only and not (found.state_dir / "cache").exists():
        click.echo(f"note: {found.state_dir} is new; a server with another --state-dir has another cache", err=True)
    return run_bringing(
        found, lambda bringer, make_app: _fetch(found, bringer, make_app, sources, targets, no_deps, cache_only)
    )


def _refuse_directories(requirements: Sequence[str]) -> None:
    for text in requirements:
        if is_directory(Path(text)):
            raise Invalid(f"{text!r} is a directory: put -- before PACKAGE_DIR, or write '{text}>=0' for a project")


def _read(
    requirements: Sequence[str], files: Sequence[str], targets: Sequence["Target"]
) -> tuple["Requirements", list["Selection"]]:
    """What has to be resolved, and what lock files name. Raises Invalid."""
    from pypiserver_ng.index.lockfiles import read_lock
    from pypiserver_ng.index.requirements import combine_requirements, read_bytes, read_requirements

    if not requirements and not files:
        raise Invalid("there is nothing to fetch: name projects, or a file with -r")
    locks, open_ended = [], []
    for file in files:
        lock = read_lock(file, read_bytes(Path(file)), targets)
        if lock is not None:
            locks.append(lock)
        else:
            open_ended.append(read_requirements(Path(file)))
    return combine_requirements(requirements, open_ended), locks


async def _fetch(
    config: Config,
    bringer: "Bringer",
    make_app: "MakeApp",
    sources: tuple["Requirements", list["Selection"]],
    targets: Sequence["Target"],
    no_deps: bool,
    cache_only: bool,
) -> int:
    from pypiserver_ng.index.resolving import Unresolvable

    requirements, selections = sources
    left_out = list(requirements.left_out)
    if not requirements.is_empty:
        try:
            selections = [*selections, await _resolve(config, make_app, requirements, targets, no_deps=no_deps)]
        except Unresolvable as fault:
            notes = await bringer.explain(fault.wanted)
            return say_failure(fault, [*fault.lines, *(f"note: {note}" for note in notes)])
    wanted = list(dict.fromkeys(one for selection in selections for one in selection.wanted))
    left_out += [line for selection in selections for line in selection.left_out]
    report = await bring(bringer, wanted, cache_only=cache_only)
    return report.say(left_out)


async def _resolve(
    config: Config, make_app: "MakeApp", requirements: "Requirements", targets: Sequence["Target"], *, no_deps: bool
) -> "Selection":
    from pypiserver_ng.index.resolving import Index, find_resolver
    from pypiserver_ng.server import open_socket, reachable_address, serving

    resolver = await find_resolver()
    listening = open_socket("127.0.0.1", 0)
    index = Index(f"http://{reachable_address(listening)}{config.server_base_url}")
    with waiting(f"{resolver.name} resolves"):
        async with serving(make_app(), listening):
            return await resolver.resolve(requirements, targets, index, dependencies=not no_deps)

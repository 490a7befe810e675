"""`update`: what newer versions upstream has of local projects, and bring them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pypiserver_ng.cli.bringing import (
    EXIT_FAILED,
    SplitCommand,
    bring,
    load_bringing_config,
    run_bringing,
    waiting,
    with_bringing_settings,
    with_targets,
)
from pypiserver_ng.cli.options import is_directory, say_error
from pypiserver_ng.errors import Invalid
from pypiserver_ng.logs import escape
from pypiserver_ng.model import NormalizedName, is_project_name, normalize_name

if TYPE_CHECKING:
    from pypiserver_ng.cli.bringing import MakeApp
    from pypiserver_ng.index.bringing import Bringer
    from pypiserver_ng.index.newer import Newer, Survey


@click.command("update", cls=SplitCommand)
@click.argument("projects", nargs=-1, metavar="[PROJECT]...")
@click.option("-x", "--execute", is_flag=True, help="Bring them: all wheels and the sdist of the newest version.")
@click.option("-u", "--allow-unstable", is_flag=True, help="Pre-releases too.")
@click.option(
    "--ignorelist-file",
    "--blacklist-file",
    "ignorelist",
    metavar="FILE",
    help="Projects that are left alone, one a line; # begins a comment.",
)
@with_targets
@with_bringing_settings
def command(
    projects: tuple[str, ...],
    ignorelist: str | None,
    pythons: tuple[str, ...],
    platforms: tuple[str, ...],
    config: str | None,
    *,
    execute: bool,
    allow_unstable: bool,
    **flags: Any,
) -> int:
    """List which local projects have newer versions upstream, under the rules of this index.

    It asks upstream for the name of every local project, private ones too: nothing else here does that. Those that
    --reserve or a policy keeps from upstream, archived and quarantined ones and those of the ignore list are not asked
    for. Of pre-releases only those are listed whose project has one here as its newest, but for -u. With --python or
    --platform only files that fit are listed and brought, and the sdist where no wheel does.
    """
    from pypiserver_ng.index.targets import combine_targets

    targets = combine_targets(pythons, platforms) if pythons or platforms else []
    names, directories = _sort_out(projects)
    ignored = _read_names(Path(ignorelist)) if ignorelist else set()
    found = load_bringing_config(config, {**flags, "packages": (*directories, *flags["packages"])})

    async def work(bringer: "Bringer", _: "MakeApp") -> int:
        with waiting("asking upstream"):
            survey = await bringer.versions.survey(names, ignored, targets, allow_unstable=allow_unstable)
        return await _update(bringer, survey, execute=execute)

    return run_bringing(found, work)


def _sort_out(words: Sequence[str]) -> tuple[list[NormalizedName], list[str]]:
    """Projects, and directories as pypiserver's command takes them."""
    names: list[NormalizedName] = []
    directories: list[str] = []
    for word in words:
        if "/" in word or is_directory(Path(word)):
            directories.append(word)
        elif is_project_name(word):
            names.append(normalize_name(word))
        else:
            raise Invalid(f"{word[:100]!a} is neither a project's name nor a directory")
    return names, directories


def _read_names(path: Path) -> set[NormalizedName]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as fault:
        reason = fault.strerror if isinstance(fault, OSError) else "it is not UTF-8 text"
        raise Invalid(f"cannot read the ignore list {path}: {reason}") from None
    words = [word for line in lines if (word := line.partition("#")[0].strip())]
    for word in words:
        if not is_project_name(word):
            raise Invalid(f"the ignore list {path} holds {word[:100]!a}, which is not a project's name")
    return {normalize_name(word) for word in words}


async def _update(bringer: "Bringer", survey: "Survey", *, execute: bool) -> int:
    for one in survey.newer:
        click.echo(escape(_describe(one)))
    for problem in survey.problems:
        say_error(problem)
    if not survey.newer:
        click.echo("nothing newer" + (" of the others" if survey.problems else ""))
    code = EXIT_FAILED if survey.problems else 0
    if not execute or not survey.newer:
        return code
    report = await bring(bringer, [wanted for one in survey.newer for wanted in one.files])
    return max(report.say(), code)


def _describe(newer: "Newer") -> str:
    count = len(newer.files)
    return f"{newer.name}  {newer.here} → {newer.offered}  ({count} {'file' if count == 1 else 'files'})"

"""`why`: which rule decided about a project or a release, what is hidden, and until when."""

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from pypiserver_ng.cli.curating import become_owner, release_argument
from pypiserver_ng.cli.options import check_directories, load_config, with_settings
from pypiserver_ng.config import Config
from pypiserver_ng.config.settings import SETTINGS
from pypiserver_ng.errors import Invalid
from pypiserver_ng.logs import configure_logs, escape
from pypiserver_ng.model import NormalizedName

if TYPE_CHECKING:
    from pypiserver_ng.index.explanation import ExplainedFile, Explanation

_MOST_LINES = 50


@click.command("why")
@release_argument
@click.option("--json", "as_json", is_flag=True, help="Say it as JSON, with every file.")
@with_settings([setting.name for setting in SETTINGS])
def command(release: tuple[NormalizedName, str | None], config: str | None, *, as_json: bool, **flags: Any) -> None:
    """Say which rule decided about a project, what is hidden of it and until when.

    Give it the server's own settings. In cache mode the upstream is asked where no page is kept.
    """
    # All of it now: whose place is taken may not be able to read this program.
    import pypiserver_ng.app
    import pypiserver_ng.index.mirror  # noqa: F401

    found = load_config(config, flags)
    check_directories(found)
    configure_logs(verbosity=0, stream="none", file=None, style="text")
    try:
        become_owner(found)
        explanation = asyncio.run(_explain(found, *release))
    except OSError as fault:
        raise Invalid(f"cannot use {fault.filename or found.state_dir}: {fault.strerror}; see --state-dir") from None
    if as_json:
        _print_json(explanation)
    else:
        _print(explanation)


async def _explain(config: Config, name: NormalizedName, version: str | None) -> "Explanation":
    from pypiserver_ng.app import open_index

    async with open_index(config) as index:
        explanation = await index.explain(name)
    return explanation if version is None else explanation.of_version(version)


def _print(explanation: "Explanation") -> None:
    decision = explanation.decision
    click.echo(escape(f"{decision.reason}."))
    click.echo(escape(f"rule: {decision.rule}"))
    if explanation.upstream:
        click.echo(escape(f"upstream: {explanation.upstream}"))
    if explanation.note:
        click.echo(escape(f"note: {explanation.note}"))
    hidden = [file for file in explanation.files if not file.is_offered]
    offered = [file for file in explanation.files if file.is_offered]
    if explanation.files:
        click.echo(f"offered: {len(offered)}, not offered: {len(hidden)}")
    # What is missing is what people ask about.
    lines = [*_describe(hidden), *_describe(offered)]
    for line in lines[:_MOST_LINES]:
        click.echo(escape(line))
    if len(lines) > _MOST_LINES:
        click.echo(f"… and {len(lines) - _MOST_LINES} more releases: name a version, or use --json")


def _describe(files: Sequence["ExplainedFile"]) -> Iterator[str]:
    """One line for all files of a release that have the same fate by the same rule; they are sorted by version."""
    for (version, rule), group in itertools.groupby(files, key=lambda file: (file.version, file.rule)):
        same = list(group)
        what = same[0].filename if len(same) == 1 else f"{version or 'without version'} ({len(same)} files)"
        yield f"{'+' if same[0].is_offered else '-'} {what}  {rule}: {same[0].reason}"


def _print_json(explanation: "Explanation") -> None:
    import msgspec

    from pypiserver_ng.index.explanation import describe_explanation

    click.echo(msgspec.json.format(msgspec.json.encode(describe_explanation(explanation))).decode())

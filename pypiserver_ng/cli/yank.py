"""`yank`: installers leave a release alone unless it is asked for by its exact version (PEP 592)."""

from typing import TYPE_CHECKING

import click

from pypiserver_ng.cli.curating import curating, current_user, name_argument, reason_option, version_argument
from pypiserver_ng.model import NormalizedName

if TYPE_CHECKING:
    from pypiserver_ng.index.curation import Curator


@click.command("yank")
@name_argument
@version_argument
@reason_option
@curating()
def command(curator: "Curator", name: NormalizedName, version: str, reason: str | None) -> None:
    """Yank a release: it stays downloadable, but only an exact pin (==) installs it."""
    curator.learn(name, version)
    curator.yank(name, version, reason, current_user())
    click.echo(f"yanked {name} {version}")

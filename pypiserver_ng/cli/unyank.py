"""`unyank`: take back a `yank`."""

from typing import TYPE_CHECKING

import click

from pypiserver_ng.cli.curating import curating, current_user, name_argument, version_argument
from pypiserver_ng.model import NormalizedName

if TYPE_CHECKING:
    from pypiserver_ng.index.curation import Curator


@click.command("unyank")
@name_argument
@version_argument
@curating()
def command(curator: "Curator", name: NormalizedName, version: str) -> None:
    """Offer a yanked release again."""
    curator.learn(name, version)
    was_yanked = curator.unyank(name, version, current_user())
    click.echo(f"unyanked {name} {version}" if was_yanked else f"{name} {version} was not yanked")

"""`delete`: remove the files of a release for good."""

from typing import TYPE_CHECKING

import click

from pypiserver_ng.cli.curating import curating, name_argument, version_argument
from pypiserver_ng.model import NormalizedName

if TYPE_CHECKING:
    from pypiserver_ng.index.curation import Curator


@click.command("delete")
@name_argument
@version_argument
@curating()
def command(curator: "Curator", name: NormalizedName, version: str) -> None:
    """Delete the files of a release. Their names take no other bytes afterwards: upload a new version."""
    for file in curator.delete(name, version):
        click.echo(f"deleted {file.path}")

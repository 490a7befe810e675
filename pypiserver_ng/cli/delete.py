"""`delete`: remove the files of a release for good."""

from typing import TYPE_CHECKING

import click

from pypiserver_ng.cli.curating import curating, current_user, name_argument, version_argument
from pypiserver_ng.logs import escape
from pypiserver_ng.model import NormalizedName

if TYPE_CHECKING:
    from pypiserver_ng.index.curation import Curator


@click.command("delete")
@name_argument
@version_argument
@curating()
def command(curator: "Curator", name: NormalizedName, version: str) -> None:
    """Delete the files of a release. Their names take no other bytes afterwards: upload a new version."""
    curator.learn_all(name)
    for file in curator.delete(name, version, current_user()):
        click.echo(escape(f"deleted {file.path}"))
    if not curator.is_here(name):
        click.echo(
            f"note: {name} has no file here any more, so the fallback answers for it: --reserve or "
            f"'status {name} quarantined' keeps it from there",
            err=True,
        )

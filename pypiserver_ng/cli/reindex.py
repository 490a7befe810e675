"""`reindex`: rebuild what the catalog says of the files from the files."""

from typing import TYPE_CHECKING

import click

from pypiserver_ng.cli.curating import curating, progress
from pypiserver_ng.logs import escape

if TYPE_CHECKING:
    from pypiserver_ng.index.curation import Curator


@click.command("reindex")
@curating()
def command(curator: "Curator") -> None:
    """Read every file again and record what it says. Yanks, statuses and deleted names stay."""
    curator.scan()
    with progress("reading", curator.size()) as advance:
        count, changed = curator.reindex(advance)
    for path in changed:
        click.echo(escape(f"{path} has other bytes than before"))
    click.echo(f"{count} {'file' if count == 1 else 'files'} read")

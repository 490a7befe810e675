"""`verify`: every file against its hash."""

from typing import TYPE_CHECKING

import click

from pypiserver_ng.cli.curating import curating, progress
from pypiserver_ng.logs import escape

if TYPE_CHECKING:
    from pypiserver_ng.index.curation import Curator

EXIT_FOUND = 1


@click.command("verify")
@curating(may_create=False)
def command(curator: "Curator") -> int:
    """Compare every file with its recorded hash; names what changed, is missing, foreign or cannot be opened.

    Exit code 1 if there is any.
    """
    with progress("verifying", curator.size()) as advance:
        findings = curator.verify(advance)
    for finding in findings:
        click.echo(escape(f"{finding.root}/{finding.path}: {finding.problem}"))
    click.echo(f"{len(findings)} {'problem' if len(findings) == 1 else 'problems'} found", err=True)
    return EXIT_FOUND if findings else 0

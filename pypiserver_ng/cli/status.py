"""`status`: set a project's status marker (PEP 792)."""

from typing import TYPE_CHECKING

import click

from pypiserver_ng.cli.curating import curating, current_user, name_argument, reason_option
from pypiserver_ng.model import NormalizedName, Status

if TYPE_CHECKING:
    from pypiserver_ng.index.curation import Curator


@click.command("status")
@name_argument
@click.argument("marker", type=click.Choice([marker.value for marker in Status]))
@reason_option
@curating()
def command(curator: "Curator", name: NormalizedName, marker: str, reason: str | None) -> None:
    """Say what state a project is in.

    archived: no uploads. quarantined: no uploads, and no file is offered, also when it has none here.
    deprecated: use something else. active: none of these.
    """
    curator.learn(name)
    curator.set_status(name, Status(marker), reason, current_user())
    click.echo(f"{name} is {marker}")

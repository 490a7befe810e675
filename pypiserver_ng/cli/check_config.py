"""`check-config`: say whether `run` would accept this configuration, without starting anything."""

import click

from pypiserver_ng.cli.options import check_paths, configured, publisher_notices
from pypiserver_ng.config import Config


def _check(config: Config) -> None:
    """Check the configuration and what it names."""
    if not config.default_packages or config.packages[0].exists():
        check_paths(config)
    for notice in publisher_notices(config):
        click.echo(notice, err=True)
    click.echo("the configuration is valid")


command = click.command("check-config")(configured(_check))

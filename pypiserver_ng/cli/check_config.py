"""`check-config`: say whether `run` would accept this configuration, without starting anything."""

import click

from pypiserver_ng.cli.options import configured
from pypiserver_ng.config import Config


def _check(_config: Config) -> None:
    """Check flags, environment and configuration file, and start nothing."""
    click.echo("the configuration is valid")


command = click.command("check-config")(configured(_check))

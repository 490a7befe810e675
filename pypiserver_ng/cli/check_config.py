"""`check-config`: say whether `run` would accept this configuration, without starting or making anything."""

import os
from pathlib import Path

import click

from pypiserver_ng.cli.options import check_directories, check_texts, configured, is_directory, warn_of_entries
from pypiserver_ng.cli.run import open_certificate
from pypiserver_ng.config import Config
from pypiserver_ng.errors import Invalid


def _check(config: Config) -> None:
    """Check the configuration and what it names."""
    # The default directory is made by who serves it.
    if not config.default_packages or config.packages[0].exists():
        check_directories(config)
    check_texts(config)
    open_certificate(config)
    _check_state(config.state_dir)
    if config.log_file is not None:
        _check_log(config.log_file)
    if config.osv is not None:
        _check_advisories(config.osv)
    for notice in warn_of_entries(config):
        click.echo(notice, err=True)
    click.echo("the configuration is valid")


def _check_state(path: Path) -> None:
    """Whether it can be written, or made."""
    standing = next(one for one in (path, *path.absolute().parents) if one.exists())
    if not standing.is_dir():
        raise Invalid(f"cannot use {path}: {standing} is not a directory; see --state-dir")
    if not os.access(standing, os.R_OK | os.W_OK | os.X_OK):
        raise Invalid(f"cannot use {path}: Permission denied; see --state-dir")


def _check_log(path: Path) -> None:
    """Whether it can be written, or made where its directory is."""
    if not is_directory(path.parent):
        reason = f"there is no directory {path.parent}"
    elif is_directory(path):
        reason = "it is a directory"
    elif not os.access(path if path.exists() else path.parent, os.W_OK):
        reason = "Permission denied"
    else:
        return
    raise Invalid(f"cannot write the log file {path}: {reason}; see --log-file")


def _check_advisories(path: Path) -> None:
    from pypiserver_ng.storage.advisories import load_advisories

    load_advisories(path)


command = click.command("check-config")(configured(_check))

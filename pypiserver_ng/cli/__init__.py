"""The command line: one file per command. Parsing, sentences and exit codes; everything else is elsewhere.

Without a subcommand `run` is meant, as on pypiserver's command line.
"""

import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from pypiserver_ng import __version__
from pypiserver_ng.cli import (
    cache,
    check_config,
    client_config,
    delete,
    events,
    fetch,
    reindex,
    run,
    status,
    token,
    unyank,
    update,
    upstream,
    verify,
    why,
    yank,
)
from pypiserver_ng.cli.options import PROGRAM, flags_of
from pypiserver_ng.config.settings import ENVIRONMENT_PREFIX, SETTINGS
from pypiserver_ng.errors import Failure, Invalid

#: Bad usage or configuration.
EXIT_USAGE = 2
#: The command was understood, and what it was to do cannot be done.
EXIT_FAILED = 1


def main() -> NoReturn:
    """Run the program; faults are one line on stderr, with exit code 2 for those of usage and configuration."""
    arguments = _name_command(sys.argv[1:])
    hint = f" (see {PROGRAM} {_path_of_command(arguments)} --help)"
    try:
        code = _group.main(arguments, prog_name=PROGRAM, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as fault:
        # Its message is the help of a group.
        fault.show()
        sys.exit(EXIT_USAGE)
    except click.UsageError as fault:
        _fail(fault.format_message() + hint, EXIT_USAGE)
    except click.exceptions.Abort:
        sys.exit(130)
    except Invalid as fault:
        _fail(fault.message + hint, EXIT_USAGE)
    except Failure as fault:
        _fail(fault.message, EXIT_FAILED)
    except PermissionError as fault:
        # What a command reads by itself it names by itself; the rest is the state.
        _fail(f"cannot use {fault.filename}: {fault.strerror}; see --state-dir{hint}", EXIT_USAGE)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> NoReturn:
    # What was typed may come back in it.
    line = "".join(char if char.isprintable() else "?" for char in " ".join(message.split()))
    click.echo(f"{PROGRAM}: error: {line}", err=True)
    sys.exit(code)


def _name_command(arguments: Sequence[str]) -> list[str]:
    """Put the command first: options may stand before it, and without one `run` is meant."""
    with_value = {flag for setting in SETTINGS if setting.form == "value" for flag in flags_of(setting)} | {"--config"}
    position = 0
    while position < len(arguments) and arguments[position].startswith("-") and arguments[position] != "--":
        if arguments[position] == "--version" or (arguments[position] == "--help" and position == 0):
            return [arguments[position]]
        position += 2 if arguments[position] in with_value else 1
    if position < len(arguments) and arguments[position] in _group.commands:
        return [arguments[position], *arguments[:position], *arguments[position + 1 :]]
    return ["run", *arguments]


def _path_of_command(arguments: Sequence[str]) -> str:
    """The command that is meant, with the subcommand."""
    command = _group.commands.get(arguments[0])
    inner = command.commands if isinstance(command, click.Group) else {}
    return " ".join([arguments[0] if command else "run", *[word for word in arguments[1:] if word in inner][:1]])


@click.group(
    context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 110},
    epilog=f"Every option may also be an environment variable {ENVIRONMENT_PREFIX}<OPTION>, or a key of the "
    "TOML file that --config names. Without a command, run is meant: 'pypiserver-ng run --help' lists its options.",
)
@click.version_option(__version__, "--version", message="%(version)s")
def _group() -> None:
    """A private Python package index: it serves a directory, takes uploads, and falls back to another index."""


for module in (run, check_config, yank, unyank, delete, status, reindex, verify, cache, why, fetch, update, upstream):
    _group.add_command(module.command)
_group.add_command(events.command)
_group.add_command(client_config.command)
_group.add_command(token.command)

"""`run`: serve until told to stop."""

import contextlib
import os

import click

from pypiserver_ng.cli.options import PROGRAM, check_paths, configured
from pypiserver_ng.config import Config
from pypiserver_ng.errors import Invalid
from pypiserver_ng.model import Action


def _run(config: Config) -> None:
    """Serve the package directories until SIGTERM or Ctrl-C."""
    from pypiserver_ng.app import create_app
    from pypiserver_ng.attestations import is_available
    from pypiserver_ng.logs import announce, configure_logs
    from pypiserver_ng.server import open_socket, reachable_address, serve

    if config.default_packages:
        # Where it cannot be made, the next line says so.
        with contextlib.suppress(OSError):
            config.packages[0].mkdir()
    check_paths(config)
    try:
        configure_logs(
            verbosity=config.verbose, stream=config.log_stream, file=config.log_file, style=config.log_format
        )
    except OSError as fault:
        raise Invalid(f"cannot write the log file {config.log_file}: {fault.strerror}") from None
    try:
        application = create_app(config)
    except OSError as fault:
        raise Invalid(f"cannot use {fault.filename or config.state_dir}: {fault.strerror}; see --state-dir") from None
    except ValueError as fault:
        raise Invalid(str(fault)) from None
    try:
        listening = open_socket(config.host, config.port)
    except OSError as fault:
        raise Invalid(f"cannot listen on {config.host} port {config.port}: {_reason(fault)}; see --port") from None
    except UnicodeError:
        raise Invalid(f"cannot listen on {config.host!r}: it is not a host name; see --host") from None
    # Last: what fails above is the only line on stderr.
    for notice in _notices(config, can_verify=is_available()):
        announce(notice, config.log_format)
    url = f"http://{reachable_address(listening)}{config.server_base_url}/simple/"

    def say_ready() -> None:
        projects, files = application.index.known_counts()
        # Not of the log: whoever starts the program waits for this line, whatever the log looks like.
        click.echo(f"ready: {_count(projects, 'project')}, {_count(files, 'file')} at {url}", err=True)

    serve(application.asgi, listening, access_log=config.verbose > 0, on_ready=say_ready)


def _reason(fault: OSError) -> str:
    # The system's own words; a library may have put the address into its text once more.
    return os.strerror(fault.errno) if fault.errno and fault.errno > 0 else str(fault.strerror)


def _notices(config: Config, *, can_verify: bool) -> list[str]:
    """What is open, what is refused, and what was given in vain."""
    notices = []
    if config.inert:
        names = ", ".join(f"--{name}" for name in config.inert)
        notices.append(f"note: {names} {'has' if len(config.inert) == 1 else 'have'} no effect in {PROGRAM}")
    guarded = sorted(config.authenticate)
    if guarded and config.passwords is None:
        notices.append(
            f"note: no password file, so {_list(guarded)} {'is' if len(guarded) == 1 else 'are'} refused to everyone: "
            "give one with -P FILE, or open the server with -P . -a ."
        )
    if len(config.fallback_url) > 1:
        notices.append("note: clients are redirected to the first --fallback-url only; the others are not used")
    if config.publishers and not can_verify:
        notices.append(
            "note: attestations of uploads are accepted and not verified: pip install 'pypiserver-ng[attestations]'"
        )
    if Action.UPDATE not in config.authenticate:
        who = "everyone" if not guarded else f"everyone, though {_list(guarded)} needs credentials"
        notices.append(f"WARNING: uploads and deletions are open to {who}: add update to -a to close them")
    return notices


def _list(actions: list[Action]) -> str:
    return " and ".join(actions)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


command = click.command("run", context_settings={"show_default": False})(configured(_run))

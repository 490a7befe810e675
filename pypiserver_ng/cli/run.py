"""`run`: serve until told to stop."""

import contextlib
import os
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from pypiserver_ng.cli.options import PROGRAM, check_paths, configured, warn_of_entries
from pypiserver_ng.config import Config
from pypiserver_ng.counters import Board, Counters
from pypiserver_ng.errors import Invalid
from pypiserver_ng.model import Action, Grant, Mode, Right

if TYPE_CHECKING:
    from pypiserver_ng.app import Application
    from pypiserver_ng.server import Certificate


def _run(config: Config) -> int | None:
    """Serve the package directories until SIGTERM or Ctrl-C."""
    from pypiserver_ng.logs import configure_logs
    from pypiserver_ng.workers import supervise

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
    board = Board(config.workers)
    certificate = open_certificate(config)
    if config.workers == 1:
        counters = Counters(board)
        application, listening = _create(config, counters), _listen(config)
        # Not earlier: where something fails, that is the only line on stderr.
        _say_notices(config)
        _serve(config, application, listening, counters, certificate, lambda line: click.echo(line, err=True))
        return None
    listening = _listen(config)

    def work(seat: int, report: Callable[[str], None]) -> None:
        counters = Counters(board, seat)
        _serve(config, _create(config, counters), listening, counters, certificate, report)

    def say_ready(line: str) -> None:
        _say_notices(config)
        click.echo(line, err=True)

    return supervise(config.workers, work, say_ready, board.vacate)


def open_certificate(config: Config) -> "Certificate | None":
    """What the server proves with who it is, if it speaks TLS. Raises Invalid."""
    if config.certfile is None or config.keyfile is None:
        return None
    from pypiserver_ng.server import Certificate

    try:
        return Certificate(config.certfile, config.keyfile)
    except ValueError as fault:
        raise Invalid(str(fault)) from None


def _create(config: Config, counters: Counters) -> "Application":
    from pypiserver_ng.app import create_app

    try:
        return create_app(config, counters)
    except OSError as fault:
        raise Invalid(f"cannot use {fault.filename or config.state_dir}: {fault.strerror}; see --state-dir") from None
    except ValueError as fault:
        raise Invalid(str(fault)) from None


def _listen(config: Config) -> socket.socket:
    from pypiserver_ng.server import open_socket

    try:
        return open_socket(config.host, config.port)
    except OSError as fault:
        raise Invalid(f"cannot listen on {config.host} port {config.port}: {_reason(fault)}; see --port") from None
    except UnicodeError:
        raise Invalid(f"cannot listen on {config.host!r}: it is not a host name; see --host") from None


def _serve(
    config: Config,
    application: "Application",
    listening: socket.socket,
    counters: Counters,
    certificate: "Certificate | None",
    say: Callable[[str], None],
) -> None:
    from pypiserver_ng.server import reachable_address, serve

    scheme = "https" if certificate else "http"
    url = f"{scheme}://{reachable_address(listening)}{config.server_base_url}/simple/"

    def say_ready() -> None:
        projects, files = application.index.known_counts()
        # Not of the log: whoever starts the program waits for this line, whatever the log looks like.
        say(f"ready: {_count(projects, 'project')}, {_count(files, 'file')} at {url}")

    serve(
        application.asgi,
        listening,
        counters,
        access_log=config.verbose > 0,
        on_ready=say_ready,
        certificate=certificate,
    )


def _say_notices(config: Config) -> None:
    from pypiserver_ng.logs import announce

    for notice in [*_notices(config), *warn_of_entries(config)]:
        announce(notice, config.log_format)


def _reason(fault: OSError) -> str:
    # The system's own words; a library may have put the address into its text once more.
    return os.strerror(fault.errno) if fault.errno and fault.errno > 0 else str(fault.strerror)


def _notices(config: Config) -> list[str]:
    """What is open, what is refused, and what was given in vain."""
    notices = []
    if config.inert:
        names = ", ".join(f"--{name}" for name in config.inert)
        notices.append(f"note: {names} {'has' if len(config.inert) == 1 else 'have'} no effect in {PROGRAM}")
    if len(config.fallback_url) > 1 and config.fallback_mode is Mode.REDIRECT:
        notices.append("note: clients are redirected to the first --fallback-url only; the others are not used")
    return notices + (_notices_of_grants(config) if config.grants else _notices_of_actions(config))


def _notices_of_grants(config: Config) -> list[str]:
    notices = []
    if config.passwords is None and any(not _is_for_machines(grant) for grant in config.grants):
        notices.append("note: no password file, so that no user has the rights of [[access]]: give one with -P FILE")
    notices += [
        f"WARNING: anyone may {_list(sorted(changing))} projects, says {grant.label}"
        for grant in config.grants
        if "anyone" in grant.who and (changing := grant.may & {Right.UPLOAD, Right.CREATE, Right.DELETE})
    ]
    return notices


def _is_for_machines(grant: Grant) -> bool:
    return all(":" in who or who == "anyone" for who in grant.who)


def _notices_of_actions(config: Config) -> list[str]:
    notices = []
    guarded = sorted(config.authenticate)
    if guarded and config.passwords is None:
        notices.append(
            f"note: no password file, so {_list(guarded)} {'needs' if len(guarded) == 1 else 'need'} a token: make one "
            f"with '{PROGRAM} token create', give a file with -P FILE, or open the server with -P . -a ."
        )
    if Action.UPDATE not in config.authenticate:
        who = (
            "everyone"
            if not guarded
            else f"everyone, though {_list(guarded)} {'needs' if len(guarded) == 1 else 'need'} credentials"
        )
        notices.append(f"WARNING: uploads and deletions are open to {who}: add update to -a to close them")
    return notices


def _list(actions: Sequence[str]) -> str:
    return " and ".join(actions)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


command = click.command("run", context_settings={"show_default": False})(configured(_run))

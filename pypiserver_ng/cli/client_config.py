"""`client-config`: print the file or the lines that make a client use this server."""

import socket
from typing import Any

import click

from pypiserver_ng.cli.options import load_config, with_settings
from pypiserver_ng.client_config import CLIENTS, Server, configure_client, parse_server_url
from pypiserver_ng.config import Config
from pypiserver_ng.config.settings import SETTINGS
from pypiserver_ng.errors import Invalid
from pypiserver_ng.model import Right

#: Where a server listens and no client can go.
_EVERYWHERE = {"", "0.0.0.0", "::"}  # noqa: S104 - it is not listened on
_USUAL_PORTS = {"http": 80, "https": 443}


@click.command("client-config")
@click.argument("client", type=click.Choice(list(CLIENTS)), metavar=f"[{'|'.join(CLIENTS)}]", required=False)
@click.option(
    "--url",
    metavar="URL",
    help="Where clients reach the server. [default: what --host, --port, --server-base-url and --certfile say]",
)
@with_settings([setting.name for setting in SETTINGS])
def command(client: str | None, url: str | None, config: str | None, **flags: Any) -> None:
    """Print the file, or the lines, that make a client use this server; without a client, list them.

    Give it the server's own settings, or its --url. No credentials are printed; the text says where they belong.
    """
    found = load_config(config, flags)
    if client is None:
        for name, what in CLIENTS.items():
            click.echo(f"{name:8}{what}")
        return
    server = Server(
        parse_server_url(url) if url is not None else _find_url(found),
        uploads="credentials" if found.needs_credentials(Right.UPLOAD) else "open",
        is_guarded=found.needs_credentials(Right.LIST) or found.needs_credentials(Right.DOWNLOAD),
    )
    click.echo(configure_client(client, server), nl=False)
    if url is None and found.trusted_proxy:
        click.echo("note: clients of a proxy use the proxy's URL: name it with --url", err=True)


def _find_url(config: Config) -> str:
    if config.port == 0:
        raise Invalid("which port --port 0 picks is known when the server runs: name its URL with --url")
    scheme = "https" if config.certfile else "http"
    host = socket.gethostname() if config.host in _EVERYWHERE else config.host
    port = "" if config.port == _USUAL_PORTS[scheme] else f":{config.port}"
    url = f"{scheme}://{f'[{host}]' if ':' in host else host}{port}"
    try:
        # The prefix is joined afterwards: one that ends in /simple is meant.
        return parse_server_url(url).rstrip("/") + f"{config.server_base_url}/"
    except Invalid:
        raise Invalid(f"no client can be sent to {host!r}: name the server's URL with --url") from None

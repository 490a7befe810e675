"""`token`: make, list and revoke what machines use instead of a password."""

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from pypiserver_ng.cli.curating import curating, current_user
from pypiserver_ng.config.values import parse_actions, parse_duration, parse_glob
from pypiserver_ng.errors import Invalid

if TYPE_CHECKING:
    from pypiserver_ng.index.curation import Curator

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._@+-]{0,62}[A-Za-z0-9])?")
_LONGEST = timedelta(days=36_500)
_HEAD = ("NAME", "PROJECTS", "ACTIONS", "UNTIL VERSION", "CREATED", "EXPIRES", "LAST USE")


def _parse_name(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if not _NAME.fullmatch(value):
        raise click.BadParameter(
            f"{value[:100]!a} is no name: take 1 to 64 letters, digits and '.', '_', '-', '@', '+'"
        )
    return value


def _parse_with(parse: Any) -> Any:
    """What a setting's parser makes of an option, or of each of its values."""

    def callback(_context: click.Context, _parameter: click.Parameter, value: Any) -> Any:
        try:
            return tuple(parse(one) for one in value) if isinstance(value, tuple) else value and parse(value)
        except Invalid as fault:
            raise click.BadParameter(fault.message) from None

    return callback


def _parse_lifetime(text: str) -> timedelta:
    lifetime = min(timedelta(seconds=min(parse_duration(text), 10**12)), _LONGEST)
    if not lifetime:
        raise Invalid(f"must be longer than {text!r}")
    return lifetime


def _parse_version(text: str) -> str:
    from packaging.version import InvalidVersion, Version

    try:
        return str(Version(text))
    except InvalidVersion:
        raise Invalid(f"must be a version such as 2.4, not {text!r}") from None


@click.group("token")
def command() -> None:
    """Make, list and revoke tokens: passwords of machines, with rights of their own.

    A token is used as the password of the user __token__, or as "Authorization: Bearer".
    """


@command.command("create")
@click.argument("name", callback=_parse_name, metavar="NAME")
@click.option(
    "--projects",
    metavar="GLOB",
    multiple=True,
    callback=_parse_with(parse_glob),
    help="Projects that it is for, such as 'acme-*'. May be repeated. [default: all]",
)
@click.option(
    "--actions",
    metavar="LIST",
    default="list,download,update",
    callback=_parse_with(parse_actions),
    help="What it may do: list, download, update, separated by commas. [default: all three]",
)
@click.option(
    "--expires",
    metavar="DURATION",
    callback=_parse_with(_parse_lifetime),
    help="How long it is valid, such as 90d. [default: until it is revoked]",
)
@click.option(
    "--until-version",
    metavar="VERSION",
    callback=_parse_with(_parse_version),
    help="Later versions of its projects are not for who has it. [default: all versions]",
)
@curating()
def create(
    curator: "Curator",
    name: str,
    projects: tuple[str, ...],
    actions: frozenset[Any],
    expires: timedelta | None,
    until_version: str | None,
) -> None:
    """Make a token and print it: it is shown this once, and only a hash of it is kept.

    "update" is to upload files, also the first of a new project; nobody deletes with a token.
    """
    from pypiserver_ng.auth import make_token

    if not actions:
        raise Invalid("--actions must name at least one of list, download, update")
    token, text = make_token(name, projects or ("*",), actions, datetime.now(UTC), expires, until_version)
    curator.tokens.add(token, current_user())
    click.echo(text)


@command.command("list")
@curating(may_create=False)
def list_tokens(curator: "Curator") -> None:
    """List the tokens: projects, actions, when each was made, expires, and was used last (to the minute)."""
    now = datetime.now(UTC)
    rows = [_HEAD]
    for token, used in curator.tokens.list_used():
        expires = "never" if token.expires is None else _format(token.expires)
        if token.expires is not None and token.expires <= now:
            expires += " (expired)"
        rows.append(
            (
                token.name,
                ",".join(token.projects),
                ",".join(sorted(token.actions)),
                token.until_version or "-",
                _format(token.created),
                expires,
                "never" if used is None else _format(used),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@command.command("revoke")
@click.argument("name", metavar="NAME")
@curating(may_create=False)
def revoke(curator: "Curator", name: str) -> None:
    """Make a token invalid; a running server refuses it within a second."""
    curator.tokens.revoke(name, current_user())
    click.echo(f"{name} is revoked")


def _format(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")

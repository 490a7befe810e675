"""`upstream check`: what each upstream is worth, for people who choose among them."""

import asyncio
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from pypiserver_ng.cli.curating import parse_name
from pypiserver_ng.cli.options import load_config, say_error, with_settings
from pypiserver_ng.config.values import parse_url
from pypiserver_ng.errors import Invalid
from pypiserver_ng.logs import configure_logs, escape
from pypiserver_ng.model import NormalizedName

if TYPE_CHECKING:
    from pypiserver_ng.upstream.addresses import Upstream
    from pypiserver_ng.upstream.probing import Probe

EXIT_FAILED = 1

_FACTS = ("sha256", "size", "upload-time", "core-metadata", "yanked")
_HEADINGS = ("name", "host", "page", "file", "API", *_FACTS, "304", "packed", "ranges", "newest")


@click.group("upstream")
def command() -> None:
    """The indexes that answer for projects that are not here."""


@command.command("check")
@click.argument("urls", nargs=-1, metavar="[URL]...")
@click.option(
    "--project", default="pip", show_default=True, metavar="NAME", callback=parse_name, help="Which project to ask for."
)
@click.option("--json", "as_json", is_flag=True, help="Say it as JSON.")
@with_settings(("fallback-url",))
def check(
    urls: tuple[str, ...], project: NormalizedName, config: str | None, *, as_json: bool, fallback_url: tuple[str, ...]
) -> int:
    """Compare the configured upstreams, or the indexes at these URLs.

    How long a project's page and the first byte of a file take; which facts the page gives, as a share of its files;
    whether an unchanged page is not sent again (304), pages come packed and parts of files can be had; and when the
    project's newest file was uploaded. Exit code 1 if one of them cannot be used.
    """
    configure_logs(verbosity=0, stream="none", file=None, style="text")
    probes = asyncio.run(_probe(_choose(urls, config, fallback_url), project))
    if as_json:
        _print_json(probes)
    else:
        _print(probes, project)
    return EXIT_FAILED if any(one.problem for one in probes) else 0


def _choose(urls: Sequence[str], config: str | None, fallback_url: tuple[str, ...]) -> "Sequence[Upstream]":
    from pypiserver_ng.app import choose_upstreams
    from pypiserver_ng.upstream.addresses import Upstream

    if urls:
        return [Upstream(_parse(url), f"url-{number}") for number, url in enumerate(urls, 1)]
    found = choose_upstreams(load_config(config, {"fallback_url": fallback_url}))
    if not found:
        raise Invalid("there is no upstream to check: name a URL")
    return found


def _parse(url: str) -> str:
    try:
        return parse_url(url)
    except Invalid as fault:
        raise Invalid(f"URL {_without_secrets(url)!a} {fault.message}") from None


def _without_secrets(url: str) -> str:
    """What comes before an "@" and after a "?" may be one, whether it is a URL or not."""
    return re.sub(r"\A([a-z]*://)?.*@|[?#].*", r"\1", url, flags=re.DOTALL)[:200]


async def _probe(upstreams: "Sequence[Upstream]", project: NormalizedName) -> "list[Probe]":
    """One after the other: they are compared, and must not be in each other's way."""
    from pypiserver_ng.cli.bringing import waiting
    from pypiserver_ng.upstream.client import UpstreamClient
    from pypiserver_ng.upstream.probing import probe

    client = UpstreamClient()
    found = []
    try:
        for upstream in upstreams:
            with waiting(f"asking {upstream.name}"):
                found.append(await probe(client, upstream, project))
    finally:
        await client.close()
    return found


def _print(probes: "Sequence[Probe]", project: NormalizedName) -> None:
    rows = [_describe(one) for one in probes if not one.problem]
    if rows and sys.stdout.isatty():
        _print_table(rows, project)
    elif rows:
        widths = [max(map(len, column)) for column in zip(_HEADINGS, *rows, strict=True)]
        for row in (_HEADINGS, *rows):
            line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            click.echo(escape(line.rstrip()))
    for one in probes:
        if one.problem:
            say_error(one.problem)


def _print_table(rows: Sequence[Sequence[str]], project: NormalizedName) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"by their pages of {project}", box=box.SIMPLE)
    for heading in _HEADINGS:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(Text(escape(cell)) for cell in row))
    Console().print(table)


def _describe(one: "Probe") -> list[str]:
    return [
        one.name,
        one.host,
        _milliseconds(one.page_seconds),
        _milliseconds(one.file_seconds),
        f"{one.form} {one.api_version or '?'}",
        *(f"{one.shares[fact]:.0%}" for fact in _FACTS),
        _say(one.revalidates),
        one.compression or "no",
        _say(one.ranges),
        one.newest.strftime("%Y-%m-%d %H:%M") if one.newest else "?",
    ]


def _milliseconds(seconds: float | None) -> str:
    return "?" if seconds is None else f"{seconds * 1000:.0f} ms"


def _say(is_so: bool | None) -> str:
    return "yes" if is_so else "no"


def _print_json(probes: "Sequence[Probe]") -> None:
    import msgspec

    rows = [_describe_as_json(one) for one in probes]
    click.echo(msgspec.json.format(msgspec.json.encode(rows)).decode())


def _describe_as_json(one: "Probe") -> dict[str, Any]:
    found: dict[str, Any] = {"name": one.name, "host": one.host, "usable": one.problem is None, "problem": one.problem}
    if one.problem:
        return found
    newest = one.newest.astimezone(UTC) if isinstance(one.newest, datetime) else None
    return found | {
        "page-ms": round((one.page_seconds or 0) * 1000, 1),
        "file-ms": round((one.file_seconds or 0) * 1000, 1),
        "form": one.form,
        "api-version": one.api_version,
        "files": one.files,
        "shares": {fact: round(share, 4) for fact, share in one.shares.items()},
        "revalidates": one.revalidates,
        "compression": one.compression or None,
        "ranges": one.ranges,
        "newest": newest,
    }

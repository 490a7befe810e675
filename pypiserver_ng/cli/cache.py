"""`cache`: what was fetched from upstreams, listed and removed, beside a running server or without one."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from pypiserver_ng.cli.curating import become_owner, release_argument
from pypiserver_ng.cli.options import check_directories, load_config, with_settings
from pypiserver_ng.errors import Invalid, NotFound
from pypiserver_ng.model import NormalizedName

if TYPE_CHECKING:
    from pypiserver_ng.index.mirror.keeping import Keeper

_SETTINGS = ("packages", "state-dir")


def keeping(command: Callable[..., int | None]) -> Callable[..., Any]:
    """Turn a function of a Keeper and further arguments into one of --config, --state-dir and PACKAGE_DIR."""

    def with_keeper(config: str | None, packages: Any, state_dir: Any, **arguments: Any) -> int | None:
        with _open(config, packages, state_dir) as keeper:
            return command(keeper, **arguments)

    with_keeper.__doc__ = command.__doc__
    return with_settings(_SETTINGS)(with_keeper)


@contextmanager
def _open(file: str | None, packages: Any, state_dir: Any) -> Iterator["Keeper"]:
    from pypiserver_ng.index.mirror.keeping import Keeper
    from pypiserver_ng.storage import Cache

    config = load_config(file, {"packages": packages, "state_dir": state_dir})
    check_directories(config)
    become_owner(config)
    try:
        if not (config.state_dir / "cache").is_dir():
            raise Invalid(f"there is no cache in {config.state_dir}: name the server's directories")
        cache = Cache(config.state_dir)
    except OSError as fault:
        raise Invalid(f"cannot use {fault.filename or config.state_dir}: {fault.strerror}; see --state-dir") from None
    try:
        yield Keeper(cache)
    finally:
        cache.close()


@click.group("cache")
def command() -> None:
    """What was fetched from upstreams (--fallback-mode cache)."""


@command.command("info")
@keeping
def info(keeper: "Keeper") -> None:
    """Say how much is in the cache."""
    usage = keeper.usage()
    click.echo(f"files: {usage.files}, {_size(usage.file_bytes)}")
    click.echo(f"pages: {usage.pages}, {_size(usage.page_bytes)}")


@command.command("list")
@keeping
def list_files(keeper: "Keeper") -> None:
    """List the files in the cache: project, version, bytes, last use, filename."""
    for file in keeper.files():
        used = datetime.fromtimestamp(file.kept.used, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        click.echo(f"{file.project}  {file.version}  {file.kept.size}  {used}  {file.kept.filename}")


@command.command("remove")
@release_argument
@keeping
def remove(keeper: "Keeper", release: tuple[NormalizedName, str | None]) -> None:
    """Remove a project or one release, and forget which bytes were first seen under its filenames."""
    name, version = release
    gone, stay, is_known = keeper.remove(name, version)
    what = f"{name} {version}" if version else name
    if not is_known:
        raise NotFound(f"{what} is not in the cache")
    click.echo(f"removed {what}: {_count(gone)}" + (f"; {_count(stay)} being sent just now" if stay else ""))


@command.command("purge")
@keeping
def purge(keeper: "Keeper") -> None:
    """Remove all files, and have pages asked for again."""
    before = keeper.usage()
    keeper.purge()
    after = keeper.usage()
    click.echo(f"removed {_count(before.files - after.files)}, {_size(before.file_bytes - after.file_bytes)}")


def _count(number: int) -> str:
    return f"{number} file" if number == 1 else f"{number} files"


def _size(count: int) -> str:
    from rich.filesize import decimal

    return decimal(count)

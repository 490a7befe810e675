"""What every command's options have in common: the settings, merged from all four sources."""

import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from pypiserver_ng.config import Config, build_config
from pypiserver_ng.config.settings import ENVIRONMENT_PREFIX, SETTINGS, Setting
from pypiserver_ng.errors import Invalid
from pypiserver_ng.logs import escape

PROGRAM = "pypiserver-ng"


def configured(command: Callable[[Config], int | None]) -> Callable[..., Any]:
    """Turn a function of a Config into one of all settings, as flags."""

    def with_config(config: str | None, **flags: Any) -> int | None:
        return command(load_config(config, flags))

    with_config.__doc__ = command.__doc__
    return with_settings([setting.name for setting in SETTINGS])(with_config)


def with_settings(
    names: Sequence[str], *, is_caching: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add --config and the named settings to a command's parameters; `is_caching` where it is always in cache mode."""

    def add(wrapped: Callable[..., Any]) -> Callable[..., Any]:
        wrapped = click.option(
            "--config", metavar="FILE", help="TOML file with the settings.", envvar=f"{ENVIRONMENT_PREFIX}CONFIG"
        )(wrapped)
        for setting in reversed(SETTINGS):
            if setting.name in names:
                wrapped = _parameter(setting, is_caching=is_caching)(wrapped)
        return wrapped

    return add


def load_config(file: str | None, flags: Mapping[str, Any]) -> Config:
    """Read the TOML file, and merge everything. Raises Invalid."""
    given = {name.replace("_", "-"): value for name, value in flags.items() if value not in (None, (), False, 0)}
    return build_config(given, os.environ, _read_toml(file) if file else {}, _read_secret)


def say_error(message: str) -> None:
    """As the one line of a command that ends, where there are several or something is said after it."""
    click.echo(escape(f"{PROGRAM}: error: {message}"), err=True)


def check_paths(config: Config) -> None:
    """Whether what the configuration names can be read. Raises Invalid."""
    check_directories(config)
    check_texts(config)


def check_texts(config: Config) -> None:
    """Whether the home page and the password file can be read. Raises Invalid."""
    if config.welcome is not None:
        _read_text(config.welcome, "home page")
    if config.passwords is not None:
        _read_text(config.passwords, "password file (--passwords)", errors="replace")


def warn_of_entries(config: Config) -> list[str]:
    """What of the [[policy]], [[access]] and [[publisher]] entries has no effect."""
    from pypiserver_ng.attestations import describe_useless, is_available
    from pypiserver_ng.policy import find_useless

    useless = describe_useless(config.publishers)
    notices = [f"WARNING: {line}" for line in find_useless(config.rules, datetime.now(UTC))]
    notices += [f"WARNING: {line}" for line in _find_useless_grants(config)]
    notices += [f"note: {line}" for line in useless]
    if len(useless) < len(config.publishers) and not is_available():
        notices.append("WARNING: no attestation is verified or shown: pip install pypi-attestations, then restart")
    return notices


def _find_useless_grants(config: Config) -> list[str]:
    if not config.grants:
        return []
    from pypiserver_ng.auth import find_useless_grants, parse_htpasswd

    users = None
    if config.passwords is not None:
        users = {user for user, entry in parse_htpasswd(config.passwords.read_bytes()).entries.items() if entry}
    return find_useless_grants(config.grants, users)


def check_directories(config: Config) -> None:
    """Whether the package directories can be read. Raises Invalid."""
    for path in config.packages:
        try:
            next(path.iterdir(), None)
        except FileNotFoundError:
            raise Invalid(
                f"there is no package directory (and no command) {str(path)!r}: create it or name another"
            ) from None
        except NotADirectoryError:
            raise Invalid(f"the package directory {path} is not a directory: name one") from None
        except OSError as fault:
            raise Invalid(f"cannot read the package directory {path}: {fault.strerror}") from None


def is_directory(path: Path) -> bool:
    """Not, too, where nobody may look."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _read_text(path: Path, what: str, *, errors: str = "strict") -> None:
    try:
        path.read_text(encoding="utf-8", errors=errors)
    except OSError as fault:
        raise Invalid(f"cannot read the {what} {path}: {fault.strerror}") from None
    except UnicodeDecodeError:
        raise Invalid(f"the {what} {path} is not UTF-8 text") from None


def _read_toml(file: str) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(file).read_text(encoding="utf-8"))
    except OSError as fault:
        raise Invalid(f"cannot read the configuration file {file}: {fault.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
        raise Invalid(f"the configuration file {file} is not valid TOML: {fault}") from None


def _read_secret(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise Invalid(f"cannot read the secret in {file}") from None


def flags_of(setting: Setting) -> list[str]:
    return [*setting.flags, f"--{setting.name}"]


def _parameter(setting: Setting, *, is_caching: bool) -> Callable[[Any], Any]:
    if setting.form == "argument":
        return click.argument(setting.name, nargs=-1, metavar=f"[{setting.metavar}]...")
    text = setting.help.replace(" Cache mode only.", "") if is_caching else setting.help
    default = setting.default_text or (setting.default if setting.form == "value" else "")
    if default:
        text = f"{text.rstrip('.')}. [default: {default}]"
    shape: dict[str, Any] = {"help": text, "hidden": setting.inert}
    if setting.form == "flag":
        shape["is_flag"] = True
    elif setting.form == "count":
        shape["count"] = True
    else:
        shape |= {"metavar": setting.metavar, "multiple": setting.multiple}
    return click.option(*flags_of(setting), setting.name.replace("-", "_"), **shape)

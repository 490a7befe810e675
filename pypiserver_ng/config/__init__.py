"""Flags > environment > TOML > defaults become one frozen `Config`.

This room reads no file and no environment itself: it is given their contents.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pypiserver_ng.config.access import parse_access, parse_groups
from pypiserver_ng.config.coherence import check_modes, check_pairing, check_proxy, check_tls
from pypiserver_ng.config.policies import parse_policies
from pypiserver_ng.config.publishers import parse_publishers
from pypiserver_ng.config.settings import ENVIRONMENT_PREFIX, SETTINGS, Setting
from pypiserver_ng.config.upstreams import DEFAULT_NAME, name_fallbacks, parse_upstreams
from pypiserver_ng.config.values import Network, nearest, parse_path
from pypiserver_ng.errors import Invalid
from pypiserver_ng.model import ANYONE, Action, Grant, Mode, Publisher, Right, Rule, UpstreamSettings

#: What a container orchestrator sets for a service called "pypiserver-ng"; none of it is ours.
_ORCHESTRATOR = re.compile(r"\A(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT_\d+_(?:TCP|UDP)(?:_\w+)?)\Z")

_BY_NAME = {setting.name: setting for setting in SETTINGS}
#: Keys of the configuration file that no flag and no variable can give.
TABLES = ("publisher", "upstream", "policy", "access", "groups")


@dataclass(frozen=True, slots=True)
class Config:
    """Everything a run needs to know. Paths may be relative to the working directory."""

    packages: tuple[Path, ...]
    state_dir: Path
    host: str = "127.0.0.1"
    port: int = 0
    #: Both or neither.
    certfile: Path | None = None
    keyfile: Path | None = None
    #: None without a password file (also for ``-P .``).
    passwords: Path | None = None
    authenticate: frozenset[Action] = frozenset({Action.UPDATE})
    disable_fallback: bool = False
    #: Each ends with ``/``; may hold credentials, which never leave the server. Empty = pip's own index.
    fallback_url: tuple[str, ...] = field(default=(), repr=False)
    #: In the order in which they are asked: the [[upstream]] tables or the fallback URLs. Empty = pip's own index.
    upstreams: tuple[UpstreamSettings, ...] = field(default=(), repr=False)
    fallback_mode: Mode = Mode.REDIRECT
    reserve: tuple[str, ...] = ()
    merge: tuple[str, ...] = ()
    #: Seconds, or None for off.
    cooldown: int | None = None
    offline: bool = False
    #: Bytes, or None for unlimited.
    cache_size: int | None = None
    osv: Path | None = None
    #: The [[policy]] tables in their order; what they leave out is said by the fields above.
    rules: tuple[Rule, ...] = ()
    overwrite: bool = False
    #: Bytes.
    max_upload_size: int = 2**30
    #: Processes.
    workers: int = 1
    health_endpoint: str = "/health"
    #: ``""`` or ``/prefix`` without a slash at its end.
    server_base_url: str = ""
    trusted_proxy: tuple[Network, ...] = ()
    #: Without a slash at its end.
    accel_redirect: str | None = None
    #: Seconds, or None for the built-in ages.
    cache_control: int | None = None
    welcome: Path | None = None
    verbose: int = 0
    log_file: Path | None = None
    log_format: str = "text"
    log_stream: str = "stderr"
    #: Who may speak for which projects; the tables of the configuration file, in their order.
    publishers: tuple[Publisher, ...] = ()
    #: The [[access]] tables in their order; empty = `authenticate` alone decides.
    grants: tuple[Grant, ...] = ()
    conceal: bool = False
    #: Names of given settings that have no effect.
    inert: tuple[str, ...] = ()
    #: Whether PACKAGE_DIR was left to its default.
    default_packages: bool = False

    def needs_credentials(self, right: Right) -> bool:
        """Whether there may be a project for which not everybody has the right."""
        if self.grants:
            first = self.grants[0]
            return not (ANYONE in first.who and "*" in first.projects and right in first.may)
        return right.action in self.authenticate


def build_config(
    flags: Mapping[str, Any],
    environment: Mapping[str, str],
    toml: Mapping[str, Any],
    read_secret: Callable[[str], str],
) -> Config:
    """Merge the sources. `flags` holds only what was given; `read_secret` reads the file a ``…_FILE`` variable names.

    Raises Invalid with one line that names the setting as its source spells it.
    """
    _refuse_unknown_keys(toml)
    _refuse_unknown_variables(environment)
    values: dict[str, Any] = {}
    given: set[str] = set()
    for setting in SETTINGS:
        found = _find(setting, flags, environment, toml, read_secret)
        if found is not None:
            given.add(setting.name)
        values[setting.name] = _default(setting) if found is None else found
    values["fallback-mode"] = Mode(values["fallback-mode"])
    upstreams = _choose_upstreams(values, parse_upstreams(toml.get("upstream", []), read_secret))
    rules = parse_policies(toml.get("policy", []), [one.name for one in upstreams] or [DEFAULT_NAME])
    check_pairing(values["passwords"], values["authenticate"])
    check_proxy(values)
    check_tls(values)
    check_modes(values, rules)
    tables = {
        "upstreams": upstreams,
        "rules": rules,
        "publishers": parse_publishers(toml.get("publisher", [])),
        "grants": parse_access(toml.get("access", []), parse_groups(toml.get("groups", {}))),
    }
    return _compose(values, given, tables)


def _find(
    setting: Setting,
    flags: Mapping[str, Any],
    environment: Mapping[str, str],
    toml: Mapping[str, Any],
    read_secret: Callable[[str], str],
) -> Any:
    if flags.get(setting.name) not in (None, ()):
        source = setting.metavar if setting.form == "argument" else f"--{setting.name}"
        return _parse(setting, flags[setting.name], source)
    for variable in (setting.variable, *setting.environment_aliases):
        text = environment.get(variable)
        if text and not (setting.name == "port" and text.startswith(("tcp://", "udp://"))):
            return _parse(setting, _split(setting, text), variable)
    if setting.secret and (file := environment.get(f"{setting.variable}_FILE")):
        return _parse(setting, _split(setting, read_secret(file).strip()), f"{setting.variable}_FILE")
    if setting.name in toml:
        return _parse(setting, toml[setting.name], f"{setting.name!r} in the configuration file")
    return None


def _default(setting: Setting) -> Any:
    return None if setting.default is None else _parse(setting, setting.default, setting.name)


def _split(setting: Setting, text: str) -> str | list[str]:
    return [part for part in re.split(setting.separator, text) if part] if setting.multiple else text


def _parse(setting: Setting, value: Any, source: str) -> Any:
    try:
        if setting.multiple:
            items = value if isinstance(value, list | tuple) else [value]
            return tuple(setting.parse(_as_text(item)) for item in items)
        if setting.name == "authenticate" and isinstance(value, list | tuple):
            value = ",".join(str(item) for item in value)
        return setting.parse(_as_text(value))
    except Invalid as fault:
        raise Invalid(f"{source} {fault.message}") from None


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float | Path):
        return str(value)
    raise Invalid(f"must be a text or a number, not {type(value).__name__}")


def _refuse_unknown_keys(toml: Mapping[str, Any]) -> None:
    for key in toml:
        if key not in _BY_NAME and key not in TABLES:
            raise Invalid(f"unknown key {key!r} in the configuration file{nearest(key, [*_BY_NAME, *TABLES])}")


def _refuse_unknown_variables(environment: Mapping[str, str]) -> None:
    known = {setting.variable for setting in SETTINGS}
    known |= {f"{setting.variable}_FILE" for setting in SETTINGS if setting.secret}
    known.add(f"{ENVIRONMENT_PREFIX}CONFIG")
    for variable in environment:
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable in known:
            continue
        if not _ORCHESTRATOR.match(variable.removeprefix(ENVIRONMENT_PREFIX)):
            raise Invalid(f"unknown environment variable {variable}{nearest(variable, sorted(known))}")


def _choose_upstreams(
    values: Mapping[str, Any], configured: tuple[UpstreamSettings, ...]
) -> tuple[UpstreamSettings, ...]:
    if not configured:
        return name_fallbacks(values["fallback-url"])
    for name in ("fallback-url", "disable-fallback"):
        if values[name]:
            raise Invalid(f"--{name} and [[upstream]] entries contradict each other: remove one of them")
    return configured


def _compose(values: dict[str, Any], given: set[str], tables: Mapping[str, Any]) -> Config:
    passwords: str | None = values["passwords"]
    packages: tuple[Path, ...] = values["packages"]
    if not packages:
        raise Invalid("packages must name at least one directory")
    fields = {name.replace("-", "_"): value for name, value in values.items() if not _BY_NAME[name].inert}
    fields |= {
        **tables,
        "cooldown": values["cooldown"] or None,
        "passwords": None if passwords in {None, "."} else parse_path(str(passwords)),
        "state_dir": values["state-dir"] or packages[0] / ".pypiserver-ng",
        "inert": tuple(sorted(name for name in given if _BY_NAME[name].inert)),
        "default_packages": "packages" not in given,
    }
    return Config(**fields)

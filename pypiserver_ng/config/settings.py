"""The one table of settings: flags, help, environment variables, TOML keys and docs come from it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pypiserver_ng.config.values import (
    choice,
    parse_actions,
    parse_base_path,
    parse_count,
    parse_duration,
    parse_endpoint,
    parse_flag,
    parse_glob,
    parse_limit,
    parse_location,
    parse_network,
    parse_path,
    parse_port,
    parse_size,
    parse_text,
    parse_url,
    parse_workers,
)

ENVIRONMENT_PREFIX = "PYPISERVER_NG_"


@dataclass(frozen=True, slots=True)
class Setting:
    """One option: its long flag is also its TOML key and, in capitals, its environment variable."""

    name: str
    help: str
    parse: Callable[[str], Any]
    default: Any = None
    #: How the default is shown where its value says too little.
    default_text: str = ""
    metavar: str = ""
    flags: tuple[str, ...] = ()
    multiple: bool = False
    #: Splits an environment variable into several values.
    separator: str = r"[\s,]+"
    #: "value", "flag" (no argument), "count" (-vv) or "argument" (positional).
    form: str = "value"
    secret: bool = False
    #: Accepted from pypiserver command lines, without effect.
    inert: bool = False
    environment_aliases: tuple[str, ...] = ()

    @property
    def variable(self) -> str:
        return ENVIRONMENT_PREFIX + self.name.replace("-", "_").upper()


SETTINGS: tuple[Setting, ...] = (
    Setting(
        "packages",
        "Directories to serve, recursively; names that begin with a dot are left out. Uploads go into the first.",
        parse_path,
        default=("packages",),
        default_text="packages",
        metavar="PACKAGE_DIR",
        multiple=True,
        separator=":",
        form="argument",
    ),
    Setting(
        "port",
        "Port to listen on; 0 picks a free one.",
        parse_port,
        default="8080",
        metavar="N",
        flags=("-p",),
        environment_aliases=("PYPISERVER_PORT",),
    ),
    Setting(
        "host",
        "Address to listen on.",
        parse_text,
        default="0.0.0.0",  # noqa: S104 - pypiserver's documented default
        metavar="ADDR",
        flags=("-i", "-H", "--interface"),
    ),
    Setting(
        "certfile",
        "Serve https with this certificate (PEM, with the chain behind it); re-read when it changes. "
        "Together with --keyfile.",
        parse_path,
        default_text="none",
        metavar="FILE",
    ),
    Setting(
        "keyfile",
        "Private key of the certificate (PEM, without a passphrase). Together with --certfile.",
        parse_path,
        default_text="none",
        metavar="FILE",
    ),
    Setting(
        "passwords",
        "htpasswd file with the users; re-read when it changes. '.' = none (together with '-a .').",
        parse_text,
        metavar="FILE",
        flags=("-P",),
    ),
    Setting(
        "authenticate",
        "Actions that need credentials: update, download, list, separated by commas. '.' = none.",
        parse_actions,
        default="update",
        metavar="LIST",
        flags=("-a",),
    ),
    Setting(
        "conceal",
        "Answer 404 instead of 403 to those who may not see a project ([[access]] entries and tokens).",
        parse_flag,
        default="false",
        form="flag",
    ),
    Setting(
        "disable-fallback",
        "Answer 404 for projects that are not here.",
        parse_flag,
        default="false",
        form="flag",
    ),
    Setting(
        "fallback-url",
        "Simple API of the index that answers for projects without a local file. May be repeated; order is priority: "
        "in cache mode all are asked in it, otherwise clients are redirected to the first.",
        parse_url,
        default=(),
        default_text="the index that pip on this machine uses",
        metavar="URL",
        multiple=True,
        separator=r"\s+",
        secret=True,
    ),
    Setting(
        "fallback-mode",
        "redirect: clients are sent to the first upstream. cache: what upstream has is fetched, checked, kept and "
        "served from here.",
        choice("redirect", "cache"),
        default="redirect",
        metavar="MODE",
    ),
    Setting(
        "reserve",
        "Projects that never go upstream, even with no local file, such as 'acme-*'. May be repeated.",
        parse_glob,
        default=(),
        default_text="none",
        metavar="GLOB",
        multiple=True,
    ),
    Setting(
        "merge",
        "Projects whose local files are listed together with those of upstream, such as 'acme-*'. Cache mode only. "
        "May be repeated.",
        parse_glob,
        default=(),
        default_text="none",
        metavar="GLOB",
        multiple=True,
    ),
    Setting(
        "cooldown",
        "Withhold files of upstream that are younger than this, such as 4d, and those whose age is unknown. "
        "Cache mode only.",
        parse_duration,
        default_text="off",
        metavar="DURATION",
    ),
    Setting(
        "osv",
        "Directory or zip of OSV records: releases of upstream that MAL- records name are withheld; looked at again "
        "when it changes. Cache mode only.",
        parse_path,
        default_text="none",
        metavar="PATH",
    ),
    Setting(
        "offline",
        "Never contact upstream; serve what is kept. Cache mode only.",
        parse_flag,
        default="false",
        form="flag",
    ),
    Setting(
        "cache-size",
        "Above this, the files of upstream that were asked for longest ago are removed. Cache mode only.",
        parse_limit,
        default_text="unlimited",
        metavar="SIZE",
    ),
    Setting(
        "overwrite",
        "Let a different file replace one of the same name.",
        parse_flag,
        default="false",
        flags=("-o",),
        form="flag",
    ),
    Setting("max-upload-size", "Refuse larger uploads with 413.", parse_size, default="1GiB", metavar="SIZE"),
    Setting(
        "state-dir",
        "Where the catalog, the cache and upload scratch live.",
        parse_path,
        default_text="<first PACKAGE_DIR>/.pypiserver-ng",
        metavar="DIR",
    ),
    Setting(
        "workers",
        "Processes that serve the same port.",
        parse_workers,
        default="1",
        metavar="N",
    ),
    Setting("health-endpoint", "Path of the health check.", parse_endpoint, default="/health", metavar="PATH"),
    Setting(
        "server-base-url",
        "Serve everything under this path prefix.",
        parse_base_path,
        default="/",
        metavar="PREFIX",
    ),
    Setting(
        "trusted-proxy",
        "Address or network of a reverse proxy whose X-Forwarded-* and Forwarded headers are believed. "
        "May be repeated.",
        parse_network,
        default=(),
        default_text="none",
        metavar="ADDR",
        multiple=True,
    ),
    Setting(
        "accel-redirect",
        "Let a trusted proxy send files from the disk: the internal location, such as /-files, below which nginx finds "
        "the file system. It is told by X-Accel-Redirect. Needs --trusted-proxy.",
        parse_location,
        default_text="off",
        metavar="PREFIX",
    ),
    Setting(
        "cache-control",
        "max-age of file downloads, in seconds or as a duration.",
        parse_duration,
        default_text="a year; revalidated each time with --overwrite",
        metavar="AGE",
    ),
    Setting(
        "welcome",
        "Own home page; {{URL}}, {{VERSION}}, {{NUMPKGS}}, {{PACKAGES}} and {{SIMPLE}} are replaced in it.",
        parse_path,
        default_text="built in",
        metavar="FILE",
    ),
    Setting(
        "verbose",
        "Log more: -v each request, -vv details.",
        parse_count,
        default="0",
        flags=("-v",),
        form="count",
    ),
    Setting("log-file", "Log to this file as well.", parse_path, default_text="none", metavar="FILE"),
    Setting(
        "log-format",
        "text, or json: one object a line.",
        choice("text", "json"),
        default="text",
        metavar="FORMAT",
    ),
    Setting(
        "log-stream",
        "Where the log goes: stderr, stdout or none.",
        choice("stderr", "stdout", "none"),
        default="stderr",
        metavar="STREAM",
    ),
    *(
        Setting(
            name,
            "Accepted from pypiserver command lines; has no effect.",
            parse_text,
            metavar="X",
            inert=True,
        )
        for name in (
            "backend",
            "server",
            "hash-algo",
            "log-frmt",
            "log-req-frmt",
            "log-res-frmt",
            "log-err-frmt",
        )
    ),
)

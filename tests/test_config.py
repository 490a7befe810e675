"""Flags, environment, TOML and defaults become one configuration, or one line that says what to change."""

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pypiserver_ng.config import Config, build_config
from pypiserver_ng.config.settings import SETTINGS, Setting
from pypiserver_ng.config.values import parse_base_path, parse_duration, parse_endpoint, parse_glob, parse_size
from pypiserver_ng.errors import Invalid
from pypiserver_ng.model import Action, Mode


def build(
    flags: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    toml: Mapping[str, Any] | None = None,
    secrets: Mapping[str, str] | None = None,
) -> Config:
    return build_config(flags or {}, environment or {}, toml or {}, (secrets or {}).__getitem__)


def refuse(**sources: Any) -> str:
    """The one line that bad sources are answered with."""
    with pytest.raises(Invalid) as refused:
        build(**sources)
    assert "\n" not in refused.value.message
    return refused.value.message


# Sources.


def test_the_defaults() -> None:
    """They are pypiserver's, where it has them."""
    config = build()
    assert (config.host, config.port, config.packages) == ("0.0.0.0", 8080, (Path("packages"),))
    assert config.state_dir == Path("packages/.pypiserver-ng")
    assert (config.passwords, config.authenticate) == (None, frozenset({Action.UPDATE}))
    assert (config.disable_fallback, config.fallback_url, config.overwrite) == (False, (), False)
    assert (config.upstreams, config.rules, config.fallback_mode) == ((), (), Mode.REDIRECT)
    assert (config.merge, config.cooldown, config.osv, config.offline, config.cache_size) == (
        (),
        None,
        None,
        False,
        None,
    )
    assert (config.max_upload_size, config.health_endpoint, config.server_base_url) == (2**30, "/health", "")
    assert (config.cache_control, config.log_format, config.inert) == (None, "text", ())
    assert config.default_packages


def test_flags_beat_environment_beats_toml_beats_default() -> None:
    """Each source is asked only when those before it are silent."""
    toml, environment, flags = {"port": 3}, {"PYPISERVER_NG_PORT": "2"}, {"port": "1"}
    assert build(flags, environment, toml).port == 1
    assert build({}, environment, toml).port == 2
    assert build({}, {}, toml).port == 3
    assert build({}, {"PYPISERVER_NG_PORT": ""}, toml).port == 3, "an empty variable says nothing"


def test_a_flag_replaces_the_whole_list_of_another_source() -> None:
    """Lists of two sources are not mixed."""
    environment = {"PYPISERVER_NG_RESERVE": "b-*"}
    assert build({"reserve": ("a-*",)}, environment, {"reserve": ["c-*"]}).reserve == ("a-*",)


SAMPLES = {
    "packages": ("one", (Path("one"),)),
    "port": ("9", 9),
    "host": ("::1", "::1"),
    "certfile": ("a.pem", Path("a.pem")),
    "keyfile": ("a.key", Path("a.key")),
    "passwords": ("users", Path("users")),
    "authenticate": ("list,download", frozenset({Action.LIST, Action.DOWNLOAD})),
    "conceal": ("true", True),
    "disable-fallback": ("true", True),
    "fallback-url": ("http://mirror.example/simple", ("http://mirror.example/simple/",)),
    "reserve": ("Acme_*", ("acme-*",)),
    "merge": ("Acme_*", ("acme-*",)),
    "cooldown": ("4d", 345600),
    "osv": ("records.zip", Path("records.zip")),
    "offline": ("on", True),
    "cache-size": ("1GB", 10**9),
    "overwrite": ("yes", True),
    "max-upload-size": ("2MiB", 2**21),
    "state-dir": ("state", Path("state")),
    "workers": ("4", 4),
    "health-endpoint": ("/up", "/up"),
    "server-base-url": ("/pypi/", "/pypi"),
    "trusted-proxy": ("10.0.0.0/8", (ipaddress.ip_network("10.0.0.0/8"),)),
    "accel-redirect": ("/-files/", "/-files"),
    "cache-control": ("1h", 3600),
    "welcome": ("home.html", Path("home.html")),
    "verbose": ("2", 2),
    "log-file": ("log", Path("log")),
    "log-format": ("json", "json"),
    "log-stream": ("stdout", "stdout"),
}
OF_CACHE_MODE = ("merge", "cooldown", "osv", "offline", "cache-size")
WORKING = tuple(setting for setting in SETTINGS if setting.name in SAMPLES)


@pytest.mark.parametrize("setting", WORKING, ids=lambda setting: setting.name)
def test_every_setting_has_every_source(setting: Setting) -> None:
    """The same text means the same as a flag, as a variable and as a TOML value."""
    text, expected = SAMPLES[setting.name]
    field = setting.name.replace("-", "_")
    flag = (text,) if setting.multiple else text
    others: dict[str, Any] = {"fallback-mode": "cache"} if setting.name in OF_CACHE_MODE else {}
    if setting.name == "accel-redirect":
        others = {"trusted-proxy": ("10.0.0.1",)}
    if setting.name in {"certfile", "keyfile"}:
        others = {"certfile": "b", "keyfile": "b"}
        del others[setting.name]
    sources: list[dict[str, Any]] = [
        {"flags": {setting.name: flag, **others}},
        {"environment": {setting.variable: text}, "toml": others},
        {"toml": {setting.name: [text] if setting.multiple else text, **others}},
    ]
    if setting.secret:
        sources.append({"environment": {f"{setting.variable}_FILE": "f"}, "secrets": {"f": f"{text}\n"}})
    assert [getattr(build(**source), field) for source in sources] == [expected] * len(sources)


@pytest.mark.parametrize("mode", tuple(Mode))
def test_a_mode(mode: Mode) -> None:
    """As a word of the model."""
    assert build({"fallback-mode": mode.value.upper()}).fallback_mode is mode


def test_files_are_left_to_a_proxy_that_is_named() -> None:
    """Who may send them has to be said."""
    assert refuse(flags={"accel-redirect": "/-files"}) == (
        "--accel-redirect has no effect without --trusted-proxy: add the proxy's address"
    )


@pytest.mark.parametrize(("given", "missing"), (("certfile", "keyfile"), ("keyfile", "certfile")))
def test_a_certificate_has_a_key(given: str, missing: str) -> None:
    """Nobody may think that he serves https."""
    assert refuse(flags={given: "a.pem"}) == (
        f"--{given} has no effect without --{missing}: give both to serve https, or neither"
    )


@pytest.mark.parametrize("name", OF_CACHE_MODE)
def test_what_needs_cache_mode_is_refused_without_it(name: str) -> None:
    """Nobody may think himself protected by a flag without effect."""
    text = SAMPLES[name][0]
    advice = f"--{name} has no effect on clients that are redirected: add --fallback-mode cache"
    assert refuse(flags={name: (text,) if name == "merge" else text}) == advice
    assert refuse(toml={name: text, "fallback-mode": "redirect"}) == advice


def test_what_is_off_needs_no_cache_mode() -> None:
    """A cooldown of nothing is none."""
    config = build({"cooldown": "0"}, {}, {"offline": False, "merge": []})
    assert (config.cooldown, config.offline, config.merge) == (None, False, ())


def test_nothing_is_cached_without_a_fallback() -> None:
    """One contradicts the other."""
    message = refuse(flags={"disable-fallback": "true", "fallback-mode": "cache"})
    assert message == "--disable-fallback leaves nothing to cache: remove it, or cache mode"


def test_every_setting_is_tried() -> None:
    """A new setting needs a sample, a help text and a value's name."""
    untried = {setting.name for setting in SETTINGS if not setting.inert} - SAMPLES.keys()
    assert untried == {"fallback-mode"}
    for setting in SETTINGS:
        assert setting.help.endswith((".", "details.")) or ":" in setting.help
        assert setting.metavar or setting.form in {"flag", "count"}


MULTIPLE = (
    ("packages", "a b:c", "packages", (Path("a b"), Path("c"))),
    ("reserve", "a-*, b-*  c", "reserve", ("a-*", "b-*", "c")),
    (
        "fallback-url",
        "http://a.example/,x http://b.example/",
        "fallback_url",
        ("http://a.example/,x/", "http://b.example/"),
    ),
)


@pytest.mark.parametrize(("name", "text", "field", "expected"), MULTIPLE)
def test_a_variable_holds_several_values(name: str, text: str, field: str, expected: tuple[Any, ...]) -> None:
    """Directories are separated by colons, URLs by blanks, the rest by blanks or commas."""
    assert getattr(build(environment={f"PYPISERVER_NG_{name.replace('-', '_').upper()}": text}), field) == expected


def test_toml_takes_its_own_types() -> None:
    """Numbers, truth values and lists need no quotes."""
    toml = {"port": 81, "overwrite": True, "authenticate": ["list", "update"], "packages": "one", "cache-control": 60}
    config = build(toml=toml)
    assert (config.port, config.overwrite, config.packages, config.cache_control) == (81, True, (Path("one"),), 60)
    assert config.authenticate == {Action.LIST, Action.UPDATE}


def test_a_variable_of_pypiservers_image_is_read() -> None:
    """PYPISERVER_PORT counts where ours is not set."""
    assert build(environment={"PYPISERVER_PORT": "82"}).port == 82
    assert build(environment={"PYPISERVER_PORT": "82", "PYPISERVER_NG_PORT": "83"}).port == 83


def test_what_an_orchestrator_sets_is_passed_over() -> None:
    """A service called pypiserver-ng gives every container such variables."""
    environment = {
        "PYPISERVER_NG_PORT": "tcp://10.0.0.1:8080",
        "PYPISERVER_NG_SERVICE_HOST": "10.0.0.1",
        "PYPISERVER_NG_SERVICE_PORT": "8080",
        "PYPISERVER_NG_SERVICE_PORT_HTTP": "8080",
        "PYPISERVER_NG_PORT_8080_TCP": "tcp://10.0.0.1:8080",
        "PYPISERVER_NG_PORT_8080_TCP_ADDR": "10.0.0.1",
        "PYPISERVER_PORT": "tcp://10.0.0.2:80",
    }
    assert build(environment=environment).port == 8080


def test_the_state_lies_in_the_first_directory() -> None:
    """Unless it is told otherwise."""
    assert build({"packages": ("a", "b")}).state_dir == Path("a/.pypiserver-ng")
    assert build({"packages": ("a", "b"), "state-dir": "s"}).state_dir == Path("s")


def test_a_secret_is_not_shown() -> None:
    """A configuration may end up in a traceback or a log."""
    assert "hunter2" not in repr(build({"fallback-url": ("https://u:hunter2@mirror.example/",)}))


def test_settings_without_effect_are_named() -> None:
    """Given ones only, sorted."""
    assert build({"server": "x"}, {"PYPISERVER_NG_BACKEND": "y"}).inert == ("backend", "server")


# Values.

SIZES = (
    ("0", 0),
    ("1024", 1024),
    ("1KB", 1000),
    ("1kib", 1024),
    (" 2 GiB ", 2**31),
    ("1.5MB", 1_500_000),
    ("3gb", 3 * 10**9),
)


@pytest.mark.parametrize(("text", "size"), SIZES)
def test_a_size(text: str, size: int) -> None:
    """Bytes, or decimal and binary units in any case."""
    assert parse_size(text) == size


DURATIONS = (("90", 90), ("90s", 90), ("2m", 120), ("12h", 43200), ("4d", 345600), ("1w", 604800), ("0.5h", 1800))


@pytest.mark.parametrize(("text", "seconds"), DURATIONS)
def test_a_duration(text: str, seconds: int) -> None:
    """Seconds, or a number with a unit."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ("", "x", "-1", "1TB", "1 5", "1e3", "0x10", "1\n2", "nan", "9" * 40))
def test_no_size_and_no_duration(text: str) -> None:
    """What is no plain quantity is refused."""
    with pytest.raises(Invalid):
        parse_size(text)
    with pytest.raises(Invalid):
        parse_duration(text)


GLOBS = (
    ("acme-*", "acme-*"),
    ("Acme_*", "acme-*"),
    ("acme.core", "acme-core"),
    ("a--b", "a-b"),
    ("acme_[a-c]*", "acme-[a-c]*"),
    ("?[!-]x_y", "?[!-]x-y"),
)


@pytest.mark.parametrize(("text", "glob"), GLOBS)
def test_a_glob_matches_normalized_names(text: str, glob: str) -> None:
    """Separators are normalized as names are, except in a set of characters."""
    assert parse_glob(text) == glob


@pytest.mark.parametrize(("text", "prefix"), (("/", ""), ("", ""), ("pypi", "/pypi"), ("//a//b/", "/a/b")))
def test_a_prefix(text: str, prefix: str) -> None:
    """With a slash before it and none after it."""
    assert parse_base_path(text) == prefix


@pytest.mark.parametrize(
    "text", ("/", "health", "/simple/x", "/-/health", "/packages", "/PyPI/x", "/a//b", "/a b", "/a?")
)
def test_no_health_endpoint(text: str) -> None:
    """A path of its own, not one that the index answers."""
    with pytest.raises(Invalid):
        parse_endpoint(text)


# Refusals.

BAD_FLAGS = (
    ("port", "65536"),
    ("port", "-1"),
    ("port", "http"),
    ("authenticate", "upload"),
    ("authenticate", ""),
    ("authenticate", ".,list"),
    ("fallback-url", ("ftp://mirror.example/",)),
    ("fallback-url", ("mirror.example/simple",)),
    ("fallback-url", ("https://mirror.example/?q=1",)),
    ("fallback-url", ("https://[::1/",)),
    ("fallback-mode", "proxy"),
    ("reserve", ("acme/*",)),
    ("merge", ("acme/*",)),
    ("cooldown", "soon"),
    ("osv", "a\0b"),
    ("offline", "perhaps"),
    ("cache-size", "huge"),
    ("cache-size", "0"),
    ("cache-size", "0.0GB"),
    ("max-upload-size", "lots"),
    ("state-dir", "a\0b"),
    ("state-dir", "a\udcff"),
    ("welcome", "~no-such-user-here/x"),
    ("server-base-url", "/a/../b"),
    ("server-base-url", "/a b"),
    ("health-endpoint", "/simple/"),
    ("trusted-proxy", ("localhost",)),
    ("trusted-proxy", ("10.0.0.0/99",)),
    ("accel-redirect", "/"),
    ("accel-redirect", "files"),
    ("accel-redirect", "/a/../b"),
    ("accel-redirect", "/a\r\nb"),
    ("accel-redirect", "https://mirror.example/x"),
    ("cache-control", "soon"),
    ("log-format", "xml"),
    ("log-stream", "file"),
    ("host", ""),
)


@pytest.mark.parametrize(("name", "value"), BAD_FLAGS)
def test_a_bad_value_names_its_source(name: str, value: Any) -> None:
    """The flag, the variable or the key, as it was spelt there."""
    assert refuse(flags={name: value}).startswith(f"--{name} ")
    text = value[0] if isinstance(value, tuple) else value
    variable = f"PYPISERVER_NG_{name.replace('-', '_').upper()}"
    if text:
        assert refuse(environment={variable: text}).startswith(f"{variable} ")
    assert refuse(toml={name: list(value) if isinstance(value, tuple) else value}).startswith(f"'{name}' in the ")


@pytest.mark.parametrize("value", ([1, 2], {"a": 1}, [["x"]]))
def test_a_toml_value_of_a_wrong_type(value: Any) -> None:
    """A list or a table where one value is meant."""
    assert refuse(toml={"port": value}).startswith("'port' in the configuration file must be")


def test_a_bad_secret_file_names_its_variable() -> None:
    """And does not show the secret."""
    message = refuse(environment={"PYPISERVER_NG_FALLBACK_URL_FILE": "f"}, secrets={"f": "ftp://u:hunter2@x"})
    assert message.startswith("PYPISERVER_NG_FALLBACK_URL_FILE ")
    assert "hunter2" not in message


@pytest.mark.parametrize("source", ({"toml": {"packages": []}}, {"environment": {"PYPISERVER_NG_PACKAGES": ":"}}))
def test_no_directory_at_all(source: dict[str, Any]) -> None:
    """An empty list is not the default."""
    assert "at least one directory" in refuse(**source)


UNKNOWN = (
    ({"toml": {"fallback_url": "x"}}, "'fallback_url'", "'fallback-url'"),
    ({"toml": {"prot": 1}}, "'prot'", "'port'"),
    ({"environment": {"PYPISERVER_NG_PASWORDS": "x"}}, "PYPISERVER_NG_PASWORDS", "'PYPISERVER_NG_PASSWORDS'"),
    ({"environment": {"PYPISERVER_NG_PORT_FILE": "x"}}, "PYPISERVER_NG_PORT_FILE", "'PYPISERVER_NG_"),
)


@pytest.mark.parametrize(("source", "given", "nearest"), UNKNOWN)
def test_an_unknown_key_names_the_nearest(source: dict[str, Any], given: str, nearest: str) -> None:
    """So that a slip of the finger is not passed over."""
    assert re.search(rf"unknown .*{re.escape(given)}.*did you mean {re.escape(nearest)}", refuse(**source))


def test_a_key_unlike_any_other() -> None:
    """Nothing is suggested where nothing is near."""
    assert "did you mean" not in refuse(toml={"qqqqqqqq": 1})


PAIRS = (
    ({"passwords": "."}, "add '-a .'"),
    ({"authenticate": "."}, "add '-P .'"),
    ({"passwords": "users", "authenticate": "."}, "add '-P .'"),
    ({"passwords": ".", "authenticate": "list"}, "add '-a .'"),
)


@pytest.mark.parametrize(("flags", "advice"), PAIRS)
def test_no_passwords_and_no_authentication_go_together(flags: dict[str, str], advice: str) -> None:
    """One without the other would be a server that is open, or shut, by accident."""
    assert advice in refuse(flags=flags)


def test_an_open_server() -> None:
    """Both dots, also from two sources."""
    config = build({"passwords": "."}, {"PYPISERVER_NG_AUTHENTICATE": "."})
    assert (config.passwords, config.authenticate) == (None, frozenset())

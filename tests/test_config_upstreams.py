"""`[[upstream]]` tables and fallback URLs become upstreams, or one line that names the entry and the key."""

import tomllib
from collections.abc import Mapping
from typing import Any

import pytest

from pypiserver_ng.config import Config, build_config
from pypiserver_ng.errors import Invalid
from pypiserver_ng.model import OnError, UpstreamSettings

PUBLIC = {"name": "public", "url": "https://mirror.example/simple/"}
URL = "https://mirror.example/simple/"


def build(value: Any = (), flags: Mapping[str, Any] | None = None, secrets: Mapping[str, str] | None = None) -> Config:
    def read_secret(file: str) -> str:
        if file not in (secrets or {}):
            raise Invalid(f"cannot read the secret in {file}")
        return (secrets or {})[file]

    return build_config(flags or {}, {}, {} if value == () else {"upstream": value}, read_secret)


def refuse(value: Any, flags: Mapping[str, Any] | None = None, secrets: Mapping[str, str] | None = None) -> str:
    """The one line that a bad configuration is answered with."""
    with pytest.raises(Invalid) as refused:
        build(value, flags, secrets)
    assert "\n" not in refused.value.message
    return refused.value.message


def test_the_example_of_the_documentation() -> None:
    """As the TOML parser gives it, with the URL that a file holds."""
    text = """
        [[upstream]]
        name = "partner"
        url-file = "partner-index"
        on-error = "stop"

        [[upstream]]
        name = "public"
        url = "https://mirror.example/simple"
    """
    config = build(tomllib.loads(text)["upstream"], secrets={"partner-index": "https://u:pw@partner.example/\n"})
    assert config.upstreams == (
        UpstreamSettings("partner", "https://u:pw@partner.example/", OnError.STOP),
        UpstreamSettings("public", URL, OnError.NEXT),
    )
    assert "pw" not in repr(config)
    assert "pw" not in repr(config.upstreams)


def test_fallback_urls_are_upstreams() -> None:
    """Numbered in their order; one alone needs no number."""
    config = build(flags={"fallback-url": (URL, "https://two.example")})
    assert config.upstreams == (
        UpstreamSettings("upstream-1", URL),
        UpstreamSettings("upstream-2", "https://two.example/"),
    )
    assert build(flags={"fallback-url": (URL,)}).upstreams == (UpstreamSettings("upstream", URL),)
    assert build([], {"fallback-url": (URL,)}).fallback_url == (URL,)


@pytest.mark.parametrize("flags", ({"fallback-url": (URL,)}, {"disable-fallback": "true"}))
def test_only_one_may_say_where_else_to_ask(flags: dict[str, Any]) -> None:
    """Upstreams are named in one place."""
    (name,) = flags
    assert refuse([PUBLIC], flags) == f"--{name} and [[upstream]] entries contradict each other: remove one of them"


BAD = (
    ({"nam": "x"}, "unknown key 'nam': did you mean 'name'?"),
    (PUBLIC | {"on_error": "next"}, "unknown key 'on_error': did you mean 'on-error'?"),
    ({"url": URL}, "'name' is missing"),
    ({"name": "x"}, "'url' is missing"),
    (PUBLIC | {"name": 1}, "'name' must be a text of one line, not 1"),
    (PUBLIC | {"name": "two words"}, "'name' must be one word of ASCII characters, not 'two words'"),
    (PUBLIC | {"name": "spiegel-ü"}, "'name' must be one word of ASCII characters, not 'spiegel-ü'"),
    (PUBLIC | {"on-error": "retry"}, "'on-error' must be 'next' or 'stop', not 'retry'"),
    (PUBLIC | {"on-error": ["next"]}, "'on-error' must be 'next' or 'stop', not ['next']"),
    (PUBLIC | {"url-file": "f"}, "'url' and 'url-file' say the same: remove one of them"),
    ({"name": "x", "url-file": ["f"]}, "'url-file' must be a text of one line, not ['f']"),
    ({"name": "x", "url-file": "absent"}, "cannot read the secret in absent"),
    ({"name": "x", "url-file": "f"}, "'url-file' must be an absolute http:// or https:// URL"),
    ({"name": "x", "url": "ftp://u:hunter2@x/"}, "'url' must be an absolute http:// or https:// URL"),
    ({"name": "x", "url": ["https://u:hunter2@x/"]}, "'url' must be an absolute http:// or https:// URL"),
    ({"name": "x", "url": URL + "?a=b"}, "'url' must be a URL without '?' and '#': the project name is appended to it"),
    (PUBLIC, "'name' 'public' is taken by an entry before it: give each its own"),
)


@pytest.mark.parametrize(("entry", "expected"), BAD)
def test_a_bad_entry_is_named_by_its_number(entry: dict[str, Any], expected: str) -> None:
    """Entries are counted from one, and no secret is shown."""
    message = refuse([PUBLIC, entry], secrets={"f": "ftp://u:hunter2@x"})
    assert message == f"[[upstream]] number 2 in the configuration file: {expected}"


@pytest.mark.parametrize("value", (URL, PUBLIC, [URL]))
def test_upstream_is_an_array_of_tables(value: Any) -> None:
    """`[upstream]` with single brackets is the usual mistake."""
    assert refuse(value) == "'upstream' in the configuration file must be tables that begin with [[upstream]]"

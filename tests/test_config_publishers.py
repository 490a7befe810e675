"""`[[publisher]]` tables become publishers, or one line that names the entry and the key."""

import tomllib
from typing import Any

import pytest

from pypiserver_ng.config import Config, build_config
from pypiserver_ng.errors import Invalid
from pypiserver_ng.model import Publisher

SOUND = {
    "issuer": "https://issuer.example",
    "claims": {"repository": "acme/core", "workflow": "release.yml"},
    "projects": ["acme-core"],
}


def build(**toml: Any) -> Config:
    return build_config({}, {}, toml, str)


def refuse(value: Any) -> str:
    """The one line that a bad configuration file is answered with."""
    with pytest.raises(Invalid) as refused:
        build(publisher=value)
    assert "\n" not in refused.value.message
    return refused.value.message


def test_the_example_of_the_documentation() -> None:
    """As the TOML parser gives it."""
    text = """
        port = 8081

        [[publisher]]
        issuer = "https://issuer.example"
        audience = "packages.example"
        claims = { repository = "acme/core", workflow = "release.yml" }
        projects = ["Acme_Core", "acme-*"]

        [[publisher]]
        issuer = "https://other.example/tenant"
        claims.email = "robot@acme.example"
        projects = ["acme-tools"]
    """
    config = build(**tomllib.loads(text))
    assert config.port == 8081
    assert config.publishers == (
        Publisher(
            "https://issuer.example",
            "packages.example",
            (("repository", "acme/core"), ("workflow", "release.yml")),
            ("acme-core", "acme-*"),
        ),
        Publisher(
            "https://other.example/tenant",
            "pypiserver-ng",
            (("email", "robot@acme.example"),),
            ("acme-tools",),
        ),
    )


def test_nobody_is_trusted_by_default() -> None:
    """Without a table, or with an empty list."""
    assert build().publishers == ()
    assert build(publisher=[]).publishers == ()


@pytest.mark.parametrize(
    "issuer",
    (
        "https://issuer.example",
        "https://issuer.example:8443/realms/acme/",
        "http://localhost:8080",
        "http://127.0.0.1",
        "http://127.8.8.8:1/x",
        "http://[::1]:9000",
    ),
)
def test_an_issuer_is_kept_letter_by_letter(issuer: str) -> None:
    """Its tokens name it just so. Plain http is for loopback."""
    assert build(publisher=[SOUND | {"issuer": issuer}]).publishers[0].issuer == issuer


@pytest.mark.parametrize(
    "issuer",
    (
        "",
        1,
        None,
        ["https://issuer.example"],
        "issuer.example",
        "https://",
        "https:///path",
        "ftp://issuer.example",
        "http://issuer.example",
        "http://127.0.0.1.example",
        "http://localhost.example",
        "http://128.0.0.1",
        "http://0.0.0.0",
        "https://issuer.example?tenant=1",
        "https://issuer.example#x",
        "https://issuer.example/?",
        "https://user:secret@issuer.example",
        "http://localhost@issuer.example",
        "https://issuer.example:0",
        "https://issuer.example:99999",
        "https://[::1",
        "https://issuer .example",
        "https://issuer.example\n",
    ),
)
def test_an_issuer_is_an_https_url(issuer: Any) -> None:
    """Anything else is refused by its key."""
    assert "number 1 in the configuration file: 'issuer' must " in refuse([SOUND | {"issuer": issuer}])


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in SOUND.items() if name != key}


@pytest.mark.parametrize(
    ("entry", "expected"),
    (
        (SOUND | {"isuer": "x"}, "unknown key 'isuer': did you mean 'issuer'?"),
        (SOUND | {"project": ["x"]}, "unknown key 'project': did you mean 'projects'?"),
        (SOUND | {"zzz": 1}, "unknown key 'zzz'"),
        ({}, "'issuer' is missing"),
        (without("issuer"), "'issuer' is missing"),
        (without("claims"), "'claims' is missing"),
        (without("projects"), "'projects' is missing"),
        (SOUND | {"audience": ""}, "'audience' must be a text of one line, not ''"),
        (SOUND | {"audience": ["x"]}, "'audience' must be a text of one line, not ['x']"),
        (SOUND | {"audience": "a\nb"}, r"'audience' must be a text of one line, not 'a\nb'"),
        (SOUND | {"claims": {}}, "'claims' must be a table such as { repository = \"acme/core\" }"),
        (SOUND | {"claims": "repository"}, "'claims' must be a table such as { repository = \"acme/core\" }"),
        (SOUND | {"claims": {"repository": 1}}, "'claims.repository' must be a text of one line, not 1"),
        (SOUND | {"claims": {"repository": ""}}, "'claims.repository' must be a text of one line, not ''"),
        (SOUND | {"claims": {"a": {"b": "c"}}}, "'claims.a' must be a text of one line, not {'b': 'c'}"),
        (SOUND | {"claims": {"": "x"}}, "'claims' must be a text of one line, not ''"),
        (
            SOUND | {"projects": []},
            "'projects' must be a list of project names or patterns such as [\"acme-*\"]",
        ),
        (
            SOUND | {"projects": "acme"},
            "'projects' must be a list of project names or patterns such as [\"acme-*\"]",
        ),
        (SOUND | {"projects": ["acme", 1]}, "'projects' must be a text of one line, not 1"),
        (
            SOUND | {"projects": ["acme core"]},
            "'projects' must be a project name or pattern such as 'acme-*', not 'acme core'",
        ),
    ),
)
def test_a_bad_entry_is_named_by_its_number(entry: dict[str, Any], expected: str) -> None:
    """Entries are counted from one."""
    assert refuse([SOUND, entry]) == f"[[publisher]] number 2 in the configuration file: {expected}"


@pytest.mark.parametrize("value", ("https://issuer.example", SOUND, 1, [SOUND, "x"], [[SOUND]]))
def test_publisher_is_an_array_of_tables(value: Any) -> None:
    """`[publisher]` with single brackets is the usual mistake."""
    assert refuse(value) == "'publisher' in the configuration file must be tables that begin with [[publisher]]"


def test_a_misspelt_table_is_refused() -> None:
    """With the name that was meant."""
    with pytest.raises(
        Invalid, match=r"unknown key 'publishers' in the configuration file: did you mean 'publisher'\?"
    ):
        build(publishers=[SOUND])

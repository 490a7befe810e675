"""The documentation names every setting, every path and every command."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from starlette.routing import BaseRoute, Mount, Route

from pypiserver_ng.app import create_app
from pypiserver_ng.cli import _group, token
from pypiserver_ng.cli.options import flags_of
from pypiserver_ng.config import TABLES, build_config
from pypiserver_ng.config.settings import SETTINGS, Setting

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def documentation() -> str:
    return "\n".join(path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))))


@pytest.fixture(scope="module")
def reference() -> str:
    """The table of settings."""
    return (ROOT / "docs" / "configuration.md").read_text()


def name_setting(setting: Setting) -> str:
    return setting.metavar if setting.form == "argument" else f"--{setting.name}"


@pytest.mark.parametrize("setting", SETTINGS, ids=name_setting)
def test_every_setting_is_documented(setting: Setting, reference: str) -> None:
    """Each with its short flags, and its variable follows from its long flag."""
    assert setting.variable == "PYPISERVER_NG_" + setting.name.upper().replace("-", "_")
    if setting.form == "argument":
        assert setting.metavar in reference
        return
    for flag in flags_of(setting):
        assert f"`{flag}`" in reference


def test_no_option_is_documented_that_does_not_exist(reference: str) -> None:
    """Every long option in the reference is one."""
    known = {f"--{setting.name}" for setting in SETTINGS} | {flag for setting in SETTINGS for flag in setting.flags}
    of_tokens = {flag for option in token.create.params for flag in option.opts}
    assert set(re.findall(r"--[a-z][a-z-]+", reference)) <= known | of_tokens | {"--config"}


@pytest.mark.parametrize("table", TABLES)
def test_every_table_is_documented(table: str, reference: str) -> None:
    """With its heading and an example."""
    name = f"[{table}]" if table == "groups" else f"[[{table}]]"
    assert f"## `{name}`" in reference
    assert f"\n{name}\n" in reference


@pytest.mark.parametrize("command", sorted(_group.commands))
def test_every_command_is_documented(command: str, documentation: str) -> None:
    """In a line that can be typed."""
    assert re.search(rf"pypiserver-ng\s+{re.escape(command)}\b", documentation)


def list_paths(routes: Sequence[BaseRoute]) -> Iterator[str]:
    for route in routes:
        if isinstance(route, Route):
            yield re.sub(r":\w+\}", "}", route.path)
        elif isinstance(route, Mount):
            yield from (route.path + path for path in list_paths(route.routes))


def test_every_path_is_documented(tmp_path: Path) -> None:
    """As `docs/http.md` writes it: `GET /simple/{project}/`."""
    config = build_config({"packages": [str(tmp_path)], "disable-fallback": "true"}, {}, {}, str)
    paths = list(list_paths(create_app(config).asgi.routes))
    assert len(paths) > 10
    text = (ROOT / "docs" / "http.md").read_text()
    assert [path for path in paths if not re.search(rf"(?:GET|POST|,) {re.escape(path)}[`?]", text)] == []

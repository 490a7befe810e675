"""What a program has to load before it answers: nothing that it may never need."""

import ast
import json
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]

#: Libraries that cost time and memory.
HEAVY = {
    "aiohttp",
    "alembic",
    "jwt",
    "nh3",
    "pip",
    "prometheus_client",
    "pypi_attestations",
    "readme_renderer",
    "rich",
    "sqlalchemy",
    "starlette",
    "twine",
    "uvicorn",
    "yarl",
}

SERVE = """
import json, sys
import pypiserver_ng.server
from pypiserver_ng.app import create_app
from pypiserver_ng.cli.options import load_config
flags = json.loads(sys.argv[1])
create_app(load_config(flags.pop("config", None), flags))
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def ask(*arguments: str) -> set[str]:
    """The top-level modules that a fresh interpreter has after the program that it is given."""
    command = [sys.executable, "-W", "ignore", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(json.loads(result.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    ("more", "loaded"),
    (
        ({"disable-fallback": True}, {"sqlalchemy", "starlette", "uvicorn"}),
        ({"fallback-url": ["http://mirror.example/simple/"]}, {"sqlalchemy", "starlette", "uvicorn"}),
        (
            {"fallback-url": ["http://mirror.example/simple/"], "fallback-mode": "cache"},
            {"aiohttp", "sqlalchemy", "starlette", "uvicorn", "yarl"},
        ),
    ),
)
def test_a_server_loads_what_it_uses(more: dict[str, object], loaded: set[str], tmp_path: Path) -> None:
    """Only an index that asks upstreams by itself pays for asking."""
    flags = {"packages": [str(tmp_path)], **more}
    assert ask("-c", SERVE, json.dumps(flags)) & HEAVY == loaded


def test_only_who_trusts_publishers_verifies_their_tokens(tmp_path: Path) -> None:
    """It asks their issuers for keys, and knows signatures."""
    config = tmp_path / "config.toml"
    config.write_text(
        '[[publisher]]\nissuer = "https://issuer.example"\nclaims = { sub = "acme" }\nprojects = ["acme"]\n'
    )
    flags = {"packages": [str(tmp_path)], "disable-fallback": True, "config": str(config)}
    assert {"aiohttp", "jwt"} <= ask("-c", SERVE, json.dumps(flags))


def test_help_loads_no_server() -> None:
    """Whoever asks for help waits for the command line alone."""
    program = """
import atexit, json, sys
atexit.register(lambda: print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules}))))
sys.argv = ["pypiserver-ng", "--help"]
from pypiserver_ng.cli import main
main()
"""
    assert ask("-c", program) & HEAVY == set()


#: Imported where they are there; each has an extra of its name.
OPTIONAL = {"pypi-attestations", "sigstore"}


def test_what_is_imported_is_installed_with_it() -> None:
    """By the project's own dependencies, not by those of its tests."""
    declared = {
        canonicalize_name(Requirement(text).name)
        for text in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    }
    found = packages_distributions()
    missing = {
        f"{module} in {path.name}"
        for path in sorted((ROOT / "pypiserver_ng").rglob("*.py"))
        for module in find_imported(path)
        if module in found and not {canonicalize_name(name) for name in found[module]} & (declared | OPTIONAL)
    }
    assert missing == set()


def find_imported(path: Path) -> set[str]:
    """Top-level names of everything that a module imports, anywhere in it."""
    modules = set[str]()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            modules.add((node.module or "").partition(".")[0])
    return modules - {"pypiserver_ng"}

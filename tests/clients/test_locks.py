"""Tools that write down every file of a resolution with its hash: uv, poetry, pdm, pipenv and pip-compile."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.clients.asked import noting
from tests.tools.clients import Client, installed_version
from tests.tools.distributions import Distribution, build_sdist, build_wheel, make_wheel
from tests.tools.environment import clean_environment
from tests.tools.server import Server, running_server

pytestmark = pytest.mark.clients

#: The releases that every tool has to choose for `demo-app`, with all their files.
CHOSEN: tuple[Distribution, ...] = (
    build_wheel("demo-app", "1.0", requires=["Mid.Lib>=1", "low_lib<2"]),
    build_sdist("demo-app", "1.0", requires=["Mid.Lib>=1", "low_lib<2"]),
    build_wheel("Mid.Lib", "1.0", requires=["low-lib"]),
    build_wheel("low-lib", "1.5", tags="py2.py3-none-any"),
    build_wheel("low-lib", "1.5", build="1", description="built again"),
    build_sdist("low-lib", "1.5", suffix=".zip"),
)
HASHES = sorted(distribution.sha256 for distribution in CHOSEN)
INSTALLED = {"demo_app": "1.0", "mid_lib": "1.0", "low_lib": "1.5"}


@dataclass(frozen=True, slots=True)
class Locker:
    """How a tool is told the index and its one dependency, and what it is asked to do; ROOT is the server."""

    manifest: str
    text: str
    lockfile: str
    lock: tuple[str, ...]
    install: tuple[str, ...]


PROJECT = """\
[project]
name = "consumer"
version = "0"
requires-python = ">=3.11,<4"
dependencies = ["Demo_App"]
"""

LOCKERS = {
    "uv": Locker(
        "pyproject.toml",
        PROJECT,
        "uv.lock",
        ("lock", "--default-index", "ROOT/simple/"),
        ("sync", "--locked", "--default-index", "ROOT/simple/"),
    ),
    "poetry": Locker(
        "pyproject.toml",
        f'{PROJECT}[[tool.poetry.source]]\nname = "local"\nurl = "ROOT/simple/"\npriority = "primary"\n',
        "poetry.lock",
        ("lock",),
        ("install", "--no-root"),
    ),
    "pdm": Locker(
        "pyproject.toml",
        f'{PROJECT}[[tool.pdm.source]]\nname = "pypi"\nurl = "ROOT/simple/"\n',
        "pdm.lock",
        ("lock",),
        ("sync", "--no-self"),
    ),
    "pipenv": Locker(
        "Pipfile",  # with the URL as its documentation writes it, hashes are read from a page of HTML
        '[[source]]\nname = "local"\nurl = "ROOT/simple"\nverify_ssl = false\n[packages]\nDemo_App = "*"\n',
        "Pipfile.lock",
        ("lock",),
        ("sync",),
    ),
}
#: Environments in the project, where the test finds them.
IN_PROJECT = {"POETRY_VIRTUALENVS_IN_PROJECT": "1", "PIPENV_VENV_IN_PROJECT": "1"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for the module; a file is as deep in the directory as its place in the table."""
    root = tmp_path_factory.mktemp("locks")
    packages = root / "packages"
    for depth, distribution in enumerate(CHOSEN):
        distribution.write(packages.joinpath(*["team"] * depth))
    for version in ("1.0", "2.0"):
        make_wheel(packages, "low-lib", version)
    environment = clean_environment(root / "home")
    with running_server("--disable-fallback", "-v", packages=packages, cwd=root, env=environment) as started:
        yield started


def locked_hashes(text: str) -> list[str]:
    """The hashes of files, one of which stands in a line; pdm's hash of its own manifest is none."""
    return sorted(re.findall(r"^(?!content_hash).*\bsha256:([0-9a-f]{64})", text, re.MULTILINE))


@pytest.mark.parametrize("tool", tuple(LOCKERS))
def test_locks_and_installs_from_the_lock(
    client: Callable[[str], Client], server: Server, tmp_path: Path, tool: str
) -> None:
    """The lock has the hash of every file of what was chosen, no file was downloaded for it, and it installs."""
    program, locker = client(tool), LOCKERS[tool]
    project = tmp_path / "consumer"
    project.mkdir()
    (project / locker.manifest).write_text(locker.text.replace("ROOT", server.url))

    def run(arguments: tuple[str, ...]) -> None:
        program.run(*(one.replace("ROOT", server.url) for one in arguments), cwd=project, env=IN_PROJECT)

    with noting(server) as requests:
        run(locker.lock)
    assert locked_hashes((project / locker.lockfile).read_text()) == HASHES
    assert [request for request in requests if request.filename] == []
    run(locker.install)
    [site] = (project / ".venv" / "lib").glob("python*/site-packages")
    assert {module: installed_version(site, module) for module in INSTALLED} == INSTALLED


def test_pip_compile_reads_hashes_from_the_json_api(
    client: Callable[[str], Client], server: Server, tmp_path: Path
) -> None:
    """Every file's hash is written down, no file is downloaded to compute it, and pip takes the list."""
    wanted, pinned = tmp_path / "wanted.in", tmp_path / "pinned.txt"
    wanted.write_text("Demo_App\n")
    index = ("--index-url", server.simple)
    with noting(server) as requests:
        client("pip-tools").run("--generate-hashes", *index, wanted, "--output-file", pinned)
    assert locked_hashes(pinned.read_text()) == HASHES
    assert [request for request in requests if request.filename] == []
    facts = {request.path: request.status for request in requests if request.path.endswith("/json")}
    assert facts == {"/demo-app/json": 200, "/low-lib/json": 200, "/mid-lib/json": 200}
    client("pip").run("install", *index, "--require-hashes", "--target", tmp_path / "site", "-r", pinned)
    assert {module: installed_version(tmp_path / "site", module) for module in INSTALLED} == INSTALLED


def test_pip_refuses_a_list_with_a_wrong_hash(client: Callable[[str], Client], server: Server, tmp_path: Path) -> None:
    """One wrong hash among right ones is enough, and nothing is installed."""
    mid, low = (next(one for one in CHOSEN if one.filename.startswith(name)) for name in ("mid", "low"))
    lines = [f"mid.lib==1.0 --hash=sha256:{mid.sha256}", f"low-lib==1.5 --hash=sha256:{low.sha256[::-1]}", ""]
    (tmp_path / "pinned.txt").write_text("\n".join(lines))
    options = ("--index-url", server.simple, "--require-hashes", "--target", tmp_path / "site")
    said = client("pip").run("install", *options, "-r", tmp_path / "pinned.txt", ok=False)
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in said
    assert not (tmp_path / "site").exists()

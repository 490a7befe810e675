"""What users of every upload client see when a file of that name is already there."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.clients.asked import Asked, noting
from tests.tools.clients import Client
from tests.tools.distributions import Distribution, build_sdist, build_wheel
from tests.tools.environment import clean_environment
from tests.tools.server import OPEN, Server, running_server
from tests.tools.uploads import upload

pytestmark = pytest.mark.clients

LOGIN = ("--username", "alice", "--password", "wonder")

#: Client to its command line and, where the URL and the login are given so, its environment. URL is the server.
UPLOADERS: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "twine": (("upload", "--repository-url", "URL", *LOGIN, "dist/*"), {}),
    "uv": (("publish", "--publish-url", "URL", *LOGIN), {}),
    "flit": (("publish",), {"FLIT_INDEX_URL": "URL", "FLIT_USERNAME": "alice", "FLIT_PASSWORD": "wonder"}),
    "poetry": (("publish", "--repository", "local", *LOGIN), {"POETRY_REPOSITORIES_LOCAL_URL": "URL"}),
    "hatch": (("publish", "-n", "--repo", "URL", "--user", "alice", "--auth", "wonder"), {}),
    "pdm": (("publish", "--no-build", "--repository", "URL", *LOGIN), {}),
}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Over the fixture of that name: one package directory for the module."""
    return tmp_path_factory.mktemp("republish") / "packages"


@pytest.fixture(scope="module")
def server(packages: Path) -> Iterator[Server]:
    """One server for the module, which takes uploads from anyone; every test has a project of its own."""
    packages.mkdir()
    environment = clean_environment(packages.parent / "home")
    with running_server(
        "--disable-fallback", "-v", *OPEN, packages=packages, cwd=packages.parent, env=environment
    ) as started:
        yield started


def build(name: str, description: str) -> tuple[Distribution, Distribution]:
    return build_wheel(name, "1.0", description=description), build_sdist(name, "1.0", description=description)


def write_project(root: Path, name: str) -> None:
    """A source tree as the build tools expect it, with other files in `dist/` than the ones on the server."""
    for distribution in build(name, "other bytes"):
        distribution.write(root / "dist")
    (root / f"{name}.py").write_text('"""A demonstration."""\n\n__version__ = "1.0"\n')
    (root / "pyproject.toml").write_text(
        f'[project]\nname = "{name}"\nversion = "1.0"\ndescription = "demo"\nrequires-python = ">=3.8"\n'
        '[build-system]\nrequires = ["flit_core"]\nbuild-backend = "flit_core.buildapi"\n'
    )


@pytest.mark.parametrize("tool", tuple(UPLOADERS))
def test_other_bytes_under_a_used_name_are_refused_in_words(
    client: Callable[[str], Client], server: Server, packages: Path, tmp_path: Path, tool: str
) -> None:
    """The client fails and shows which file is there already; what was stored first stays as it was."""
    uploader, name = client(tool), f"by{tool}"
    first = build(name, "first bytes")
    for distribution in first:
        assert upload(server.url, distribution, name=name, version="1.0").status_code == 200
    write_project(tmp_path / "source", name)
    arguments, variables = UPLOADERS[tool]
    said = uploader.run(
        *(argument.replace("URL", f"{server.url}/") for argument in arguments),
        cwd=tmp_path / "source",
        env={key: value.replace("URL", f"{server.url}/") for key, value in variables.items()},
        ok=False,
    )
    assert f"File already exists: {name}-1.0" in said
    assert [(packages / one.filename).read_bytes() for one in first] == [one.content for one in first]


def posts(requests: list[Asked]) -> list[int]:
    """The answers to uploads."""
    return [request.status for request in requests if request.method == "POST"]


def test_check_url_uploads_only_what_is_new(
    client: Callable[[str], Client], server: Server, packages: Path, tmp_path: Path
) -> None:
    """A file that is there with the same hash is skipped before any upload; beside it a new one goes up."""
    publish = ("publish", "--publish-url", f"{server.url}/", "--check-url", server.simple, *LOGIN)
    there, new = build("checked", "the same bytes")
    upload(server.url, there, name="checked", version="1.0")
    files = [there.write(tmp_path), new.write(tmp_path)]
    with noting(server) as requests:
        said = client("uv").run(*publish, *files)
        again = client("uv").run(*publish, *files)
    assert posts(requests) == [200]
    assert f"{there.filename} already exists, skipping" in said
    assert f"{new.filename} already exists, skipping" in again
    assert (packages / new.filename).read_bytes() == new.content


def test_check_url_refuses_other_bytes_before_any_upload(
    client: Callable[[str], Client], server: Server, tmp_path: Path
) -> None:
    """The message names the file and both hashes, and nothing is sent."""
    publish = ("publish", "--publish-url", f"{server.url}/", "--check-url", server.simple, *LOGIN)
    there, other = build_wheel("clash", "1.0"), build_wheel("clash", "1.0", description="other bytes")
    upload(server.url, there, name="clash", version="1.0")
    with noting(server) as requests:
        said = client("uv").run(*publish, other.write(tmp_path), ok=False)
    assert posts(requests) == []
    assert f"do not match for `{there.filename}`" in said
    assert there.sha256 in said
    assert other.sha256 in said

"""The uploaders that come with build tools, against a live server: flit, poetry, hatch and pdm."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tools.clients import Client
from tests.tools.distributions import build_sdist, build_wheel
from tests.tools.server import Serve, Server

pytestmark = pytest.mark.clients

#: Uploads the project in the working directory, whose files lie in `dist/`, as a user with a password.
Publish = Callable[[Server, str, bool], str]


@pytest.fixture
def server(serve: Serve, passwords: Path) -> Server:
    return serve("--disable-fallback", "-P", str(passwords))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A source tree with a built wheel and sdist, as every one of these tools expects it."""
    root = tmp_path / "demo-app"
    write_dist(root, "# demo\n")
    (root / "demo_app.py").write_text('"""A demonstration."""\n\n__version__ = "1.0"\n')
    (root / "pyproject.toml").write_text(
        '[project]\nname = "demo-app"\nversion = "1.0"\ndescription = "demo"\nrequires-python = ">=3.8"\n'
        '[build-system]\nrequires = ["flit_core"]\nbuild-backend = "flit_core.buildapi"\n'
    )
    return root


def write_dist(root: Path, description: str) -> None:
    build_wheel("demo-app", "1.0", description=description).write(root / "dist")
    build_sdist("demo-app", "1.0", description=description).write(root / "dist")


@pytest.fixture(params=["flit", "poetry", "hatch", "pdm"])
def publish(request: pytest.FixtureRequest, client: Callable[[str], Client], project: Path) -> Publish:
    name: str = request.param
    tool = client(name)

    def run(server: Server, password: str, ok: bool) -> str:
        url = f"{server.url}/"
        match name:
            case "flit":  # builds the files that it uploads
                login = {"FLIT_INDEX_URL": url, "FLIT_USERNAME": "alice", "FLIT_PASSWORD": password}
                return tool.run("publish", cwd=project, ok=ok, env=login)
            case "poetry":
                login = {
                    "POETRY_REPOSITORIES_LOCAL_URL": url,
                    "POETRY_HTTP_BASIC_LOCAL_USERNAME": "alice",
                    "POETRY_HTTP_BASIC_LOCAL_PASSWORD": password,
                }
                return tool.run("publish", "-n", "--repository", "local", cwd=project, ok=ok, env=login)
            case "hatch":
                login = {"HATCH_INDEX_USER": "alice", "HATCH_INDEX_AUTH": password}
                return tool.run("publish", "-n", "--repo", url, "dist", cwd=project, ok=ok, env=login)
            case _:
                options = ("--no-build", "--repository", url, "--username", "alice", "--password", password)
                return tool.run("publish", *options, cwd=project, ok=ok)

    return run


def stored(packages: Path) -> list[str]:
    return sorted(path.name for path in packages.iterdir() if not path.name.startswith("."))


def test_uploads(publish: Publish, server: Server, packages: Path) -> None:
    """A wheel and an sdist go up and lie flat in the directory."""
    publish(server, "wonder", True)
    assert stored(packages) == ["demo_app-1.0-py3-none-any.whl", "demo_app-1.0.tar.gz"]


def test_what_was_uploaded_installs(
    publish: Publish, server: Server, client: Callable[[str], Client], tmp_path: Path
) -> None:
    """Installers find it with the very next request."""
    publish(server, "wonder", True)
    pip, uv = client("pip"), client("uv")
    pip.run("install", "--index-url", server.simple, "--target", tmp_path / "pip", "demo-app==1.0")
    uv.run("pip", "install", "--default-index", server.simple, "--target", tmp_path / "uv", "demo-app==1.0")


def test_a_wrong_password_is_refused(publish: Publish, server: Server, packages: Path) -> None:
    """The client shows the status and nothing is stored."""
    assert "401" in publish(server, "wrong", False)
    assert stored(packages) == []


def test_the_same_files_again_succeed(publish: Publish, server: Server) -> None:
    """A repeated release job ends well."""
    publish(server, "wonder", True)
    publish(server, "wonder", True)

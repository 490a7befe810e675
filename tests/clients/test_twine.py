"""Real twine against a live server."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tools.clients import Client, installed_version
from tests.tools.distributions import make_sdist, make_wheel
from tests.tools.server import OPEN, Serve, Server

pytestmark = pytest.mark.clients

ALICE = ("--username", "alice", "--password", "wonder")


@pytest.fixture
def twine(client: Callable[[str], Client]) -> Client:
    return client("twine")


@pytest.fixture
def server(serve: Serve, passwords: Path) -> Server:
    return serve("--disable-fallback", "-P", str(passwords))


@pytest.mark.parametrize("path", ("/", "", "/legacy/", "/legacy"))
def test_uploads_a_wheel_and_an_sdist(twine: Client, server: Server, packages: Path, tmp_path: Path, path: str) -> None:
    """Both files lie flat in the package directory afterwards, byte for byte."""
    dist = tmp_path / "dist"
    files = [make_wheel(dist, "Demo.App", "1.0"), make_sdist(dist, "Demo.App", "1.0")]
    twine.run("upload", "--repository-url", server.url + path, *ALICE, *files)
    assert sorted(file.name for file in files) == sorted(
        path.name for path in packages.iterdir() if not path.name.startswith(".")
    )
    assert all((packages / file.name).read_bytes() == file.read_bytes() for file in files)


def test_what_was_uploaded_installs(
    twine: Client, client: Callable[[str], Client], server: Server, tmp_path: Path
) -> None:
    """pip, pip that reads only HTML, and uv install it with the very next requests."""
    wheel = make_wheel(tmp_path / "dist", "demo", "1.0")
    twine.run("upload", "--repository-url", f"{server.url}/", *ALICE, wheel)
    for name in ("pip", "pip-html"):
        client(name).run("install", "--index-url", server.simple, "--target", tmp_path / name, "demo")
        assert installed_version(tmp_path / name, "demo") == "1.0"
    client("uv").run("pip", "install", "--default-index", server.simple, "--target", tmp_path / "uv", "demo")
    assert installed_version(tmp_path / "uv", "demo") == "1.0"


@pytest.mark.parametrize(("user", "password"), (("alice", "wrong"), ("bob", "wonder"), ("alice", "")))
def test_wrong_credentials_are_refused(
    twine: Client, server: Server, packages: Path, tmp_path: Path, user: str, password: str
) -> None:
    """The client ends with 401 and nothing is stored."""
    wheel = make_wheel(tmp_path / "dist", "demo", "1.0")
    credentials = {"TWINE_USERNAME": user, "TWINE_PASSWORD": password}
    said = twine.run("upload", "--repository-url", f"{server.url}/", wheel, ok=False, env=credentials)
    assert "401" in said
    assert not list(packages.glob("*.whl"))


def test_the_same_file_again_succeeds(twine: Client, server: Server, tmp_path: Path) -> None:
    """A repeated release job finds its own files and ends well."""
    dist = tmp_path / "dist"
    files = [make_wheel(dist, "demo", "1.0"), make_sdist(dist, "demo", "1.0")]
    for _ in range(2):
        twine.run("upload", "--repository-url", f"{server.url}/", *ALICE, *files)


@pytest.mark.parametrize("verbosity", ((), ("--verbose",)), ids=["quiet", "verbose"])
def test_other_bytes_under_a_used_name_are_refused(
    twine: Client, server: Server, packages: Path, tmp_path: Path, verbosity: tuple[str, ...]
) -> None:
    """The user reads "File already exists", and the first file stays as it was."""
    first = make_wheel(tmp_path / "first", "demo", "1.0")
    other = make_wheel(tmp_path / "other", "demo", "1.0", description="other bytes")
    upload = ("upload", "--repository-url", f"{server.url}/", *ALICE, *verbosity)
    twine.run(*upload, first)
    said = twine.run(*upload, other, ok=False)
    assert "409" in said
    assert "File already exists" in said
    assert (packages / first.name).read_bytes() == first.read_bytes()


def test_overwrite_takes_other_bytes(
    twine: Client, serve: Serve, passwords: Path, packages: Path, tmp_path: Path
) -> None:
    """With `--overwrite` the second file replaces the first."""
    server = serve("--disable-fallback", "-P", str(passwords), "--overwrite")
    first = make_wheel(tmp_path / "first", "demo", "1.0")
    other = make_wheel(tmp_path / "other", "demo", "1.0", description="other bytes")
    for wheel in (first, other):
        twine.run("upload", "--repository-url", f"{server.url}/", *ALICE, wheel)
    assert (packages / first.name).read_bytes() == other.read_bytes()


def test_uploads_without_credentials_where_everything_is_open(
    twine: Client, serve: Serve, packages: Path, tmp_path: Path
) -> None:
    """`-P . -a .` takes uploads from anyone, whatever user name the client makes up."""
    server = serve("--disable-fallback", *OPEN)
    wheel = make_wheel(tmp_path / "dist", "demo", "1.0")
    twine.run("upload", "--repository-url", f"{server.url}/", "-u", "", "-p", "", wheel)
    assert (packages / wheel.name).exists()


def test_uploads_under_a_prefix(twine: Client, serve: Serve, passwords: Path, packages: Path, tmp_path: Path) -> None:
    """The upload URL is the prefix when everything is served under one."""
    server = serve("--disable-fallback", "-P", str(passwords), "--server-base-url", "/python")
    wheel = make_wheel(tmp_path / "dist", "demo", "1.0")
    twine.run("upload", "--repository-url", f"{server.url}/", *ALICE, wheel)
    assert (packages / wheel.name).exists()


def test_reads_the_repository_from_pypirc(twine: Client, server: Server, packages: Path, tmp_path: Path) -> None:
    """`twine upload -r NAME` with a `.pypirc` works as the documentation writes it."""
    lines = ["[distutils]", "index-servers = local", "[local]", f"repository = {server.url}/"]
    pypirc = tmp_path / "home" / ".pypirc"
    pypirc.write_text("\n".join([*lines, "username = alice", "password = wonder", ""]))
    pypirc.chmod(0o600)
    wheel = make_wheel(tmp_path / "dist", "demo", "1.0")
    twine.run("upload", "-r", "local", wheel)
    assert (packages / wheel.name).exists()


def test_a_user_made_by_htpasswd_while_running(
    twine: Client, server: Server, passwords: Path, packages: Path, tmp_path: Path
) -> None:
    """A user that the real htpasswd adds to the file (bcrypt) may upload without a restart."""
    if shutil.which("htpasswd") is None:
        pytest.skip("htpasswd is not installed")
    command = ["htpasswd", "-b", "-B", str(passwords), "bob", "builder"]
    subprocess.run(command, check=True, capture_output=True)
    wheel = make_wheel(tmp_path / "dist", "demo", "1.0")
    twine.run("upload", "--repository-url", f"{server.url}/", "-u", "bob", "-p", "builder", wheel)
    assert (packages / wheel.name).exists()


def test_a_long_description_passes(twine: Client, server: Server, packages: Path, tmp_path: Path) -> None:
    """A README of some megabytes is a form field like any other."""
    wheel = make_wheel(tmp_path / "dist", "demo", "1.0", description="all work and no play\n" * 150_000)
    twine.run("upload", "--repository-url", f"{server.url}/", *ALICE, wheel)
    assert (packages / wheel.name).exists()


def test_a_file_that_is_no_distribution_is_refused(
    twine: Client, server: Server, packages: Path, tmp_path: Path
) -> None:
    """A wheel under the wrong name is refused by the server with one line, and nothing stays behind."""
    wheel = make_wheel(tmp_path / "dist", "demo", "1.0")
    wrong = wheel.rename(wheel.with_name("other-1.0-py3-none-any.whl"))
    said = twine.run("upload", "--repository-url", f"{server.url}/", *ALICE, "--verbose", wrong, ok=False)
    assert "400" in said
    assert not list(packages.rglob("*.whl"))

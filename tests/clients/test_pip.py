"""Real pip against a live server: the newest, and an old one that reads HTML only."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tools.clients import Client, installed_version
from tests.tools.distributions import build_wheel, make_sdist, make_wheel
from tests.tools.fake_upstream import FakeUpstream
from tests.tools.server import OPEN, Serve

pytestmark = pytest.mark.clients


@pytest.fixture(params=["pip", "pip-html"])
def pip(request: pytest.FixtureRequest, client: Callable[[str], Client]) -> Client:
    return client(request.param)


def test_installs_a_wheel_with_its_dependency(pip: Client, serve: Serve, packages: Path, tmp_path: Path) -> None:
    """A wheel and the wheel that it requires arrive from one index."""
    make_wheel(packages, "Acme.Lib", "1.0")
    make_wheel(packages, "acme-app", "2.0", requires=["acme_lib>=1"])
    server = serve("--disable-fallback")
    pip.run("install", "--index-url", server.simple, "--target", tmp_path / "site", "Acme_App")
    assert installed_version(tmp_path / "site", "acme_app") == "2.0"
    assert installed_version(tmp_path / "site", "acme_lib") == "1.0"


def test_takes_the_newest_version(pip: Client, serve: Serve, packages: Path, tmp_path: Path) -> None:
    """Without a pin the newest final release is taken, and a pin takes what it names."""
    for version in ("1.9", "1.10", "2.0rc1"):
        make_wheel(packages, "demo", version)
    server = serve("--disable-fallback")
    pip.run("install", "--index-url", server.simple, "--target", tmp_path / "newest", "demo")
    pip.run("install", "--index-url", server.simple, "--target", tmp_path / "pinned", "demo==1.9")
    assert installed_version(tmp_path / "newest", "demo") == "1.10"
    assert installed_version(tmp_path / "pinned", "demo") == "1.9"


@pytest.mark.parametrize("suffix", (".tar.gz", ".zip"))
def test_installs_an_sdist(pip: Client, serve: Serve, packages: Path, tmp_path: Path, suffix: str) -> None:
    """An sdist is downloaded, built and installed."""
    make_sdist(packages, "from-source", "0.3", suffix=suffix)
    server = serve("--disable-fallback")
    pip.run("install", "--index-url", server.simple, "--target", tmp_path / "site", "from-source")
    assert installed_version(tmp_path / "site", "from_source") == "0.3"


def test_downloads_the_same_bytes(pip: Client, serve: Serve, packages: Path, tmp_path: Path) -> None:
    """`pip download` saves the file under its own name, byte for byte."""
    wheel = make_wheel(packages / "team" / "a", "demo", "1.0+local.1")
    server = serve("--disable-fallback")
    pip.run("download", "--index-url", server.simple, "--dest", tmp_path / "here", "demo")
    assert [path.name for path in (tmp_path / "here").iterdir()] == [wheel.name]
    assert (tmp_path / "here" / wheel.name).read_bytes() == wheel.read_bytes()


@pytest.mark.parametrize("tail", ("", "/", "/simple"))
def test_takes_the_bare_root_as_index(pip: Client, serve: Serve, packages: Path, tmp_path: Path, tail: str) -> None:
    """`--index-url http://host:port` works without `/simple/`, as pypiserver's users write it."""
    make_wheel(packages, "Some_Demo", "1.0")
    server = serve("--disable-fallback")
    pip.run("install", "--index-url", server.url + tail, "--target", tmp_path / "site", "Some_Demo")
    assert installed_version(tmp_path / "site", "some_demo") == "1.0"


def test_works_under_a_prefix(pip: Client, serve: Serve, packages: Path, tmp_path: Path) -> None:
    """Pages and files are found with everything under `--server-base-url`."""
    make_wheel(packages, "demo", "1.0")
    server = serve("--disable-fallback", "--server-base-url", "/python/index")
    assert server.url.endswith("/python/index")
    pip.run("install", "--index-url", server.simple, "--target", tmp_path / "site", "demo")
    assert installed_version(tmp_path / "site", "demo") == "1.0"


def test_serves_as_extra_index(
    pip: Client, serve: Serve, upstream: FakeUpstream, packages: Path, tmp_path: Path
) -> None:
    """As `--extra-index-url` it adds its projects to those of another index."""
    make_wheel(packages, "acme-app", "1.0", requires=["public-lib"])
    upstream.add("public-lib", build_wheel("public-lib", "3.0"))
    server = serve("--disable-fallback")
    indexes = ("--index-url", upstream.url, "--extra-index-url", server.simple)
    pip.run("install", *indexes, "--target", tmp_path / "site", "acme-app")
    assert installed_version(tmp_path / "site", "public_lib") == "3.0"


def test_checks_required_hashes(pip: Client, serve: Serve, packages: Path, tmp_path: Path) -> None:
    """`--require-hashes` accepts the file that was pinned and refuses another."""
    make_wheel(packages, "demo", "1.0")
    other = build_wheel("demo", "1.0", description="other bytes")
    good = build_wheel("demo", "1.0")
    server = serve("--disable-fallback")
    index = ("--index-url", server.simple, "--require-hashes")
    (tmp_path / "good.txt").write_text(f"demo==1.0 --hash=sha256:{good.sha256}\n")
    (tmp_path / "bad.txt").write_text(f"demo==1.0 --hash=sha256:{other.sha256}\n")
    pip.run("install", *index, "--target", tmp_path / "site", "-r", tmp_path / "good.txt")
    said = pip.run("install", *index, "--target", tmp_path / "no", "-r", tmp_path / "bad.txt", ok=False)
    assert "do not match" in said.lower() or "no matching distribution" in said.lower()


def test_passes_over_files_for_other_pythons(pip: Client, serve: Serve, packages: Path, tmp_path: Path) -> None:
    """A newer release for a later Python is left alone without being downloaded."""
    make_wheel(packages, "demo", "1.0", requires_python=">=3.8")
    make_wheel(packages, "demo", "2.0", requires_python=">=4.0")
    server = serve("--disable-fallback", "-v")
    pip.run("install", "--index-url", server.simple, "--target", tmp_path / "site", "demo")
    assert installed_version(tmp_path / "site", "demo") == "1.0"
    assert server.stop() == 0
    assert "GET /packages/demo-2.0" not in server.log


def test_metadata_alone_is_fetched_to_resolve(
    client: Callable[[str], Client], serve: Serve, packages: Path, tmp_path: Path
) -> None:
    """With core metadata served beside wheels, pip never downloads the wheels that it does not choose."""
    make_wheel(packages, "app", "1.0", requires=["lib<2"])
    make_wheel(packages, "app", "2.0", requires=["lib>=9"])
    make_wheel(packages, "lib", "1.0")
    server = serve("--disable-fallback", "-v")
    client("pip").run("install", "--index-url", server.simple, "--target", tmp_path / "site", "app")
    assert installed_version(tmp_path / "site", "app") == "1.0"
    assert server.stop() == 0
    assert "GET /packages/app-2.0-py3-none-any.whl.metadata " in server.log
    assert "GET /packages/app-2.0-py3-none-any.whl " not in server.log


def test_credentials_in_the_url(pip: Client, serve: Serve, packages: Path, passwords: Path, tmp_path: Path) -> None:
    """With every action guarded, the right credentials in the index URL install and wrong ones do not."""
    make_wheel(packages, "demo", "1.0")
    server = serve("--disable-fallback", "-P", str(passwords), "-a", "update,download,list")
    good, bad = server.with_credentials("alice", "wonder"), server.with_credentials("alice", "wrong")
    pip.run("install", "--index-url", good, "--target", tmp_path / "site", "demo")
    assert installed_version(tmp_path / "site", "demo") == "1.0"
    pip.run("install", "--index-url", bad, "--target", tmp_path / "no", "demo", ok=False)
    pip.run("install", "--index-url", server.simple, "--target", tmp_path / "no", "demo", ok=False)
    assert not (tmp_path / "no").exists()


def test_credentials_from_netrc(pip: Client, serve: Serve, packages: Path, passwords: Path, tmp_path: Path) -> None:
    """The user's netrc file has the credentials."""
    make_wheel(packages, "demo", "1.0")
    server = serve("--disable-fallback", "-P", str(passwords), "-a", "update,download,list")
    netrc = tmp_path / "home" / ".netrc"
    netrc.write_text("machine 127.0.0.1 login alice password wonder\n")
    netrc.chmod(0o600)
    pip.run("install", "--index-url", server.simple, "--target", tmp_path / "site", "demo")
    assert installed_version(tmp_path / "site", "demo") == "1.0"


@pytest.mark.parametrize(("actions", "lists", "downloads"), (("list", False, False), ("download", True, False)))
def test_guarded_actions_one_by_one(
    pip: Client,
    serve: Serve,
    packages: Path,
    passwords: Path,
    tmp_path: Path,
    actions: str,
    lists: bool,
    downloads: bool,
) -> None:
    """`-a list` hides the page and with it the file; `-a download` shows the page and keeps the file."""
    wheel = make_wheel(packages, "demo", "1.0")
    server = serve("--disable-fallback", "-P", str(passwords), "-a", f"update,{actions}")
    said = pip.run("download", "--index-url", server.simple, "--dest", tmp_path / "here", "demo==1.0", ok=False)
    assert lists == ("from versions: none" not in said)
    assert downloads == (tmp_path / "here" / wheel.name).exists()


def test_an_unknown_project_is_named(pip: Client, serve: Serve) -> None:
    """Without fallback the client says that the project was not found."""
    server = serve("--disable-fallback", *OPEN)
    said = pip.run("download", "--index-url", server.simple, "no-such-project", ok=False)
    assert "No matching distribution found for no-such-project" in said


def test_metadata_is_read_by_ranges(
    client: Callable[[str], Client], serve: Serve, packages: Path, tmp_path: Path
) -> None:
    """A client that knows no metadata files reads the metadata out of the wheel by ranges."""
    filler = bytes(range(256)) * 4096
    make_wheel(packages, "big", "1.0", extra_files={"big/filler.bin": filler})
    server = serve("--disable-fallback")
    options = ("--index-url", server.simple, "--target", tmp_path / "site", "--use-feature=fast-deps")
    client("pip-html").run("install", *options, "big")
    assert (tmp_path / "site" / "big" / "filler.bin").read_bytes() == filler

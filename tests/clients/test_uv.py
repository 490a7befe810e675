"""Real uv against a live server: install, resolve, and publish."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tools.clients import Client, installed_version
from tests.tools.distributions import build_wheel, make_sdist, make_wheel
from tests.tools.fake_upstream import FakeUpstream
from tests.tools.server import Serve

pytestmark = pytest.mark.clients

ALICE = ("--username", "alice", "--password", "wonder")


@pytest.fixture
def uv(client: Callable[[str], Client]) -> Client:
    return client("uv")


def install(uv: Client, index: str, target: Path, *requirements: str, ok: bool = True) -> str:
    return uv.run("pip", "install", "--default-index", index, "--target", target, *requirements, ok=ok)


def test_installs_a_wheel_with_its_dependency(uv: Client, serve: Serve, packages: Path, tmp_path: Path) -> None:
    """A wheel and the wheel that it requires arrive from one index."""
    make_wheel(packages, "Acme.Lib", "1.0")
    make_wheel(packages, "acme-app", "2.0", requires=["acme_lib>=1"])
    server = serve("--disable-fallback")
    install(uv, server.simple, tmp_path / "site", "Acme_App")
    assert installed_version(tmp_path / "site", "acme_app") == "2.0"
    assert installed_version(tmp_path / "site", "acme_lib") == "1.0"


@pytest.mark.parametrize("suffix", (".tar.gz", ".zip"))
def test_installs_an_sdist(uv: Client, serve: Serve, packages: Path, tmp_path: Path, suffix: str) -> None:
    """An sdist is downloaded, built and installed."""
    make_sdist(packages, "from-source", "0.3", suffix=suffix)
    server = serve("--disable-fallback")
    install(uv, server.simple, tmp_path / "site", "from-source")
    assert installed_version(tmp_path / "site", "from_source") == "0.3"


@pytest.mark.parametrize("tail", ("", "/", "/simple"))
def test_takes_the_bare_root_as_index(uv: Client, serve: Serve, packages: Path, tmp_path: Path, tail: str) -> None:
    """The index URL works without `/simple/`, as pypiserver's users write it."""
    make_wheel(packages, "Some_Demo", "1.0")
    server = serve("--disable-fallback")
    install(uv, server.url + tail, tmp_path / "site", "Some_Demo")
    assert installed_version(tmp_path / "site", "some_demo") == "1.0"


def test_serves_as_extra_index(
    uv: Client, serve: Serve, upstream: FakeUpstream, packages: Path, tmp_path: Path
) -> None:
    """As an additional index it adds its projects to those of another."""
    make_wheel(packages, "acme-app", "1.0", requires=["public-lib"])
    upstream.add("public-lib", build_wheel("public-lib", "3.0"))
    server = serve("--disable-fallback")
    indexes = ("--default-index", upstream.url, "--index", server.simple)
    uv.run("pip", "install", *indexes, "--target", tmp_path / "site", "acme-app")
    assert installed_version(tmp_path / "site", "public_lib") == "3.0"


def test_checks_required_hashes(uv: Client, serve: Serve, packages: Path, tmp_path: Path) -> None:
    """`--require-hashes` accepts the file that was pinned and refuses another."""
    make_wheel(packages, "demo", "1.0")
    server = serve("--disable-fallback")
    for name, description in (("good", "# demo\n"), ("bad", "other bytes")):
        digest = build_wheel("demo", "1.0", description=description).sha256
        (tmp_path / name).write_text(f"demo==1.0 --hash=sha256:{digest}\n")
    options = ("pip", "install", "--default-index", server.simple, "--require-hashes", "--target")
    uv.run(*options, tmp_path / "site", "-r", tmp_path / "good")
    said = uv.run(*options, tmp_path / "no", "-r", tmp_path / "bad", ok=False)
    assert "hash mismatch" in said.lower()


def test_passes_over_files_for_other_pythons(uv: Client, serve: Serve, packages: Path, tmp_path: Path) -> None:
    """A newer release for a later Python is left alone."""
    make_wheel(packages, "demo", "1.0", requires_python=">=3.8")
    make_wheel(packages, "demo", "2.0", requires_python=">=4.0")
    server = serve("--disable-fallback")
    install(uv, server.simple, tmp_path / "site", "demo")
    assert installed_version(tmp_path / "site", "demo") == "1.0"


def test_files_carry_their_upload_time(uv: Client, serve: Serve, packages: Path, tmp_path: Path) -> None:
    """`--exclude-newer` counts from the upload time: yesterday hides the file, tomorrow shows it."""
    make_wheel(packages, "demo", "1.0")
    server = serve("--disable-fallback")
    options = ("pip", "install", "--default-index", server.simple, "--target", tmp_path / "site")
    said = uv.run(*options, "--exclude-newer", "2020-01-01", "demo", ok=False)
    assert "demo" in said
    uv.run(*options, "--exclude-newer", "2999-01-01", "demo")
    assert installed_version(tmp_path / "site", "demo") == "1.0"


def test_a_new_file_is_seen_by_the_next_install(
    uv: Client, serve: Serve, packages: Path, passwords: Path, tmp_path: Path
) -> None:
    """The client's cache revalidates the page, so that an upload is there at once."""
    make_wheel(packages, "demo", "1.0")
    server = serve("--disable-fallback", "-P", str(passwords))
    install(uv, server.simple, tmp_path / "old", "demo")
    newer = make_wheel(tmp_path / "dist", "demo", "1.1")
    uv.run("publish", "--publish-url", f"{server.url}/", *ALICE, newer)
    install(uv, server.simple, tmp_path / "new", "demo")
    assert installed_version(tmp_path / "new", "demo") == "1.1"


def test_credentials_in_the_url(uv: Client, serve: Serve, packages: Path, passwords: Path, tmp_path: Path) -> None:
    """With every action guarded, the right credentials in the index URL install and wrong ones do not."""
    make_wheel(packages, "demo", "1.0")
    server = serve("--disable-fallback", "-P", str(passwords), "-a", "update,download,list")
    install(uv, server.with_credentials("alice", "wonder"), tmp_path / "site", "demo")
    assert installed_version(tmp_path / "site", "demo") == "1.0"
    said = install(uv, server.with_credentials("alice", "wrong"), tmp_path / "no", "demo", ok=False)
    assert "401" in said
    assert "401" in install(uv, server.simple, tmp_path / "no", "demo", ok=False)


def test_credentials_from_netrc(uv: Client, serve: Serve, packages: Path, passwords: Path, tmp_path: Path) -> None:
    """The user's netrc file has the credentials."""
    make_wheel(packages, "demo", "1.0")
    server = serve("--disable-fallback", "-P", str(passwords), "-a", "update,download,list")
    netrc = tmp_path / "home" / ".netrc"
    netrc.write_text("machine 127.0.0.1 login alice password wonder\n")
    netrc.chmod(0o600)
    install(uv, server.simple, tmp_path / "site", "demo")
    assert installed_version(tmp_path / "site", "demo") == "1.0"


@pytest.mark.parametrize("path", ("/", "/legacy/", "/legacy"))
def test_publishes(uv: Client, serve: Serve, passwords: Path, packages: Path, tmp_path: Path, path: str) -> None:
    """A wheel and an sdist go up, lie flat in the directory, and install again."""
    dist = tmp_path / "dist"
    files = [make_wheel(dist, "demo-app", "1.0"), make_sdist(dist, "demo-app", "1.0")]
    server = serve("--disable-fallback", "-P", str(passwords))
    uv.run("publish", "--publish-url", server.url + path, *ALICE, *files)
    assert all((packages / file.name).read_bytes() == file.read_bytes() for file in files)
    install(uv, server.simple, tmp_path / "site", "demo-app")
    assert installed_version(tmp_path / "site", "demo_app") == "1.0"


def test_a_wrong_password_is_refused(uv: Client, serve: Serve, passwords: Path, packages: Path, tmp_path: Path) -> None:
    """Nothing is stored and the client shows the status."""
    wheel = make_wheel(tmp_path / "dist", "demo", "1.0")
    server = serve("--disable-fallback", "-P", str(passwords))
    wrong = ("--username", "alice", "--password", "wrong")
    said = uv.run("publish", "--publish-url", f"{server.url}/", *wrong, wheel, ok=False)
    assert "401" in said
    assert not list(packages.glob("*.whl"))


def test_the_same_file_again_succeeds_and_other_bytes_do_not(
    uv: Client, serve: Serve, passwords: Path, tmp_path: Path
) -> None:
    """Publishing twice is harmless; other bytes under the same name are refused with the reason."""
    wheel = make_wheel(tmp_path / "dist", "demo", "1.0")
    other = make_wheel(tmp_path / "other", "demo", "1.0", description="other bytes")
    server = serve("--disable-fallback", "-P", str(passwords))
    publish = ("publish", "--publish-url", f"{server.url}/", *ALICE)
    uv.run(*publish, wheel)
    uv.run(*publish, wheel)
    said = uv.run(*publish, other, ok=False)
    assert "File already exists" in said


def test_check_url_skips_what_is_there(uv: Client, serve: Serve, passwords: Path, tmp_path: Path) -> None:
    """With `--check-url` uv compares hashes first: equal is skipped, different is refused."""
    wheel = make_wheel(tmp_path / "dist", "demo", "1.0")
    other = make_wheel(tmp_path / "other", "demo", "1.0", description="other bytes")
    server = serve("--disable-fallback", "-P", str(passwords))
    publish = ("publish", "--publish-url", f"{server.url}/", "--check-url", server.simple, *ALICE)
    uv.run(*publish, wheel)
    assert "already exists, skipping" in uv.run(*publish, wheel)
    uv.run(*publish, other, ok=False)

"""Real pip and uv through the mirror: installs, locks that outlive the cache, and reasons that people see."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mirror.asking import page_of
from tests.mirror.conftest import Mirror
from tests.tools.clients import Client, installed_version
from tests.tools.distributions import build_sdist, build_wheel, make_wheel
from tests.tools.mirrored import Mirrored
from tests.tools.program import Program

pytestmark = pytest.mark.clients

#: What is chosen for `demo-app`, as real projects depend on each other, with a file nobody should choose.
APP = build_wheel("demo-app", "1.0", requires=["Mid.Lib>=1", "low_lib<2"])
MID = build_sdist("Mid.Lib", "1.0", requires=["low-lib"])
LOW = build_wheel("low-lib", "1.5")
INSTALLED = {"demo_app": "1.0", "mid_lib": "1.0", "low_lib": "1.5"}

PROJECT = """\
[project]
name = "consumer"
version = "0"
requires-python = ">=3.11,<4"
dependencies = ["Demo_App"]
"""

#: Installs the requirements from the index into the directory.
Install = Callable[..., str]


@pytest.fixture(autouse=True)
def stock(mirrored: Mirrored) -> None:
    mirrored.add("demo-app", APP)
    mirrored.add("mid-lib", MID)
    mirrored.add("low-lib", LOW)
    mirrored.add("low-lib", build_wheel("low-lib", "1.9"), yanked="broken")
    mirrored.add("low-lib", build_wheel("low-lib", "1.8"), requires_python=">=4")


@pytest.fixture(params=["pip", "pip-html", "uv"])
def install(request: pytest.FixtureRequest, client: Callable[[str], Client]) -> Install:
    tool = client(request.param)
    options = ("pip", "install", "--default-index") if request.param == "uv" else ("install", "--index-url")
    cache = ("--no-cache",) if request.param == "uv" else ("--no-cache-dir",)

    def run(index: str, target: Path, *requirements: str, ok: bool = True) -> str:
        return tool.run(*options, index, *cache, "--target", target, *requirements, ok=ok)

    return run


def assert_installed(site: Path) -> None:
    assert {module: installed_version(site, module) for module in INSTALLED} == INSTALLED


@pytest.mark.parametrize("as_json", (True, False), ids=("json", "html"))
def test_installs(install: Install, mirror: Mirror, mirrored: Mirrored, tmp_path: Path, as_json: bool) -> None:
    """Wheels and sdists with their dependencies, cold and warm; the second time without the upstream."""
    mirrored.look.as_json = mirrored.look.metadata = as_json
    server = mirror()
    install(server.simple, tmp_path / "cold", "demo-app")
    assert_installed(tmp_path / "cold")
    assert [mirrored.count_files(APP, "demo-app"), mirrored.count_files(MID, "mid-lib")] == [1, 1]
    mirrored.stop()
    install(server.simple, tmp_path / "warm", "demo-app")
    assert_installed(tmp_path / "warm")


def test_private_and_public_from_one_url(
    install: Install, mirror: Mirror, mirrored: Mirrored, packages: Path, tmp_path: Path
) -> None:
    """A local project with public dependencies, of which one is shadowed by an older local version."""
    make_wheel(packages, "acme", "1.0", requires=["demo-app"])
    make_wheel(packages, "low-lib", "1.0")
    install(mirror().simple, tmp_path / "site", "acme")
    found = [installed_version(tmp_path / "site", module) for module in ("acme", "demo_app", "low_lib")]
    assert found == ["1.0", "1.0", "1.0"]
    assert mirrored.count_pages("low-lib") == 0


def test_an_outage_is_not_an_empty_index(install: Install, mirror: Mirror, mirrored: Mirrored, tmp_path: Path) -> None:
    """The installer fails, and leaves what there is alone."""
    server = mirror()
    mirrored.spoil("/simple/low-lib/", status=500)
    install(server.simple, tmp_path / "site", "demo-app", ok=False)
    assert not (tmp_path / "site" / "demo_app").exists()


def test_wrong_bytes_are_not_installed(install: Install, mirror: Mirror, mirrored: Mirrored, tmp_path: Path) -> None:
    server = mirror()
    mirrored.spoil("/files/low-lib/*.whl", body=build_wheel("low-lib", "1.5", description="evil").content)
    install(server.simple, tmp_path / "site", "low-lib", ok=False)
    mirrored.heal()


def test_a_young_release_is_not_chosen(install: Install, mirror: Mirror, mirrored: Mirrored, tmp_path: Path) -> None:
    """With a cooldown the older one is installed, without an error."""
    mirrored.add("low-lib", build_wheel("low-lib", "1.6"), upload_time=None)
    server = mirror("--cooldown", "4d")
    install(server.simple, tmp_path / "site", "low-lib<1.8")
    assert installed_version(tmp_path / "site", "low_lib") == "1.5"


def test_uv_installs_from_a_lock_after_a_purge(
    client: Callable[[str], Client], mirror: Mirror, mirrored: Mirrored, program: Program, tmp_path: Path
) -> None:
    """The lock's URLs are this server's, and need neither a page nor a cache; a refresh changes nothing in it."""
    uv = client("uv")
    server = mirror()
    project = tmp_path / "consumer"
    project.mkdir()
    (project / "pyproject.toml").write_text(PROJECT)
    index = ("--default-index", server.simple)
    uv.run("lock", *index, cwd=project)
    text = (project / "uv.lock").read_text()
    assert set(re.findall(r"sha256:([0-9a-f]{64})", text)) >= {APP.sha256, MID.sha256, LOW.sha256}
    assert mirrored.root not in text
    uv.run("lock", *index, "--refresh", cwd=project)
    assert (project / "uv.lock").read_text() == text
    assert program.run("cache", "purge").returncode == 0
    mirrored.requests.clear()
    uv.run("sync", "--frozen", "--no-cache", cwd=project)
    [site] = (project / ".venv" / "lib").glob("python*/site-packages")
    assert_installed(site)


def test_pip_installs_with_hashes_after_a_purge(
    client: Callable[[str], Client], mirror: Mirror, program: Program, tmp_path: Path
) -> None:
    """Direct URLs with their hashes, as a lock of pip's own holds them."""
    server = mirror()
    page = page_of(server, "low-lib").json
    assert page["files"]
    lines = [
        f"{name} @ {server.url}/packages/-/{one.sha256}/{one.filename} --hash=sha256:{one.sha256}"
        for name, one in (("demo-app", APP), ("mid-lib", MID), ("low-lib", LOW))
    ]
    (tmp_path / "pinned.txt").write_text("\n".join([*lines, ""]))
    assert program.run("cache", "purge").returncode == 0
    options = ("--no-index", "--no-deps", "--no-cache-dir", "--require-hashes", "--target", tmp_path / "site")
    client("pip").run("install", *options, "-r", tmp_path / "pinned.txt")
    assert_installed(tmp_path / "site")


@pytest.mark.parametrize("tool", ("pip", "uv"))
def test_people_see_why(
    client: Callable[[str], Client], mirror: Mirror, mirrored: Mirrored, tmp_path: Path, tool: str
) -> None:
    """A release that was locked and is denied since: the installer's own output names the rule's reason."""
    server = mirror(config='[[policy]]\nprojects = ["*"]\ndeny = ["low-lib<=1.5"]\n')
    url = f"{server.url}/packages/-/{LOW.sha256}/{LOW.filename}"
    words = ("pip", "install") if tool == "uv" else ("install",)
    said = client(tool).run(*words, "--target", tmp_path / "site", f"low-lib @ {url}", ok=False)
    assert re.search(r"low-lib.{0,40}1\.5.*den|den.*low-lib", said, re.DOTALL), said
    assert "403" in said

"""pip and uv resolve from pages and metadata files alone: what is chosen, by which facts, what is fetched."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.clients.asked import Asked, noting
from tests.tools.clients import Client, installed_version
from tests.tools.distributions import date_file, make_sdist, make_wheel
from tests.tools.environment import clean_environment
from tests.tools.server import Server, running_server

pytestmark = pytest.mark.clients


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for the module, with every project that its tests ask for."""
    root = tmp_path_factory.mktemp("resolution")
    packages = root / "packages"
    make_chain(packages)
    make_dead_ends(packages)
    for version, day in (("1.0", "2024-03-01"), ("1.1", "2024-06-01"), ("2.0", "2024-09-01")):
        date_file(make_wheel(packages, "dated", version), day)
    date_file(make_sdist(packages, "dated", "2.0"), "2024-09-01")
    environment = clean_environment(root / "home")
    with running_server("--disable-fallback", "-v", packages=packages, cwd=root, env=environment) as started:
        yield started


def make_chain(packages: Path) -> None:
    """Five projects, each of which needs the next one, in two versions; the sdists are never needed."""
    for version in ("1.0", "1.1"):
        for number in range(5):
            requires = [f"Chain.{number + 1}>={version}"] if number < 4 else []
            make_wheel(packages, f"chain-{number}", version, requires=requires)
            make_sdist(packages, f"chain-{number}", version, requires=requires)


def make_dead_ends(packages: Path) -> None:
    """`puzzle` needs `left` and `right`; of the ten versions of `left` only the oldest agrees with `right`."""
    make_wheel(packages, "puzzle", "1.0", requires=["left", "right"])
    for number in range(1, 11):
        make_wheel(packages, "left", f"{number}.0", requires=["base<2" if number == 1 else "base>=2", "extra-weight"])
    make_wheel(packages, "right", "1.0", requires=["base<2"])
    make_wheel(packages, "extra-weight", "1.0")
    for version in ("1.0", "1.9", "2.0"):
        make_wheel(packages, "base", version)


@dataclass(frozen=True, slots=True)
class Installer:
    """pip or uv, each with its own words for the same."""

    client: Client
    start: tuple[str, ...]
    before: str
    site: Path

    def install(self, requirement: str, *options: str, ok: bool = True) -> str:
        return self.client.run(*self.start, "--target", self.site, *options, requirement, ok=ok)


@pytest.fixture(params=["pip", "uv"])
def installer(
    request: pytest.FixtureRequest, client: Callable[[str], Client], server: Server, tmp_path: Path
) -> Installer:
    tool = client(request.param)
    if request.param == "uv":
        return Installer(
            tool, ("pip", "install", "--default-index", server.simple), "--exclude-newer", tmp_path / "site"
        )
    return Installer(tool, ("install", "--index-url", server.simple), "--uploaded-prior-to", tmp_path / "site")


def fetched(requests: list[Asked]) -> list[str]:
    return sorted(request.filename for request in requests if request.filename)


def assert_resolved_first(requests: list[Asked]) -> None:
    """Every metadata file was asked for before the first distribution, and each of both arrived."""
    assert {request.status for request in requests} == {200}
    kinds = ["file" if one.filename else "metadata" for one in requests if one.path.startswith("/packages/")]
    assert kinds == sorted(kinds, reverse=True)
    assert set(kinds) == {"metadata", "file"}


def test_a_chain_is_resolved_before_anything_is_downloaded(installer: Installer, server: Server) -> None:
    """Of five wheels in a chain each is downloaded once, after the metadata of all of them."""
    with noting(server) as requests:
        installer.install("chain-0")
    assert_resolved_first(requests)
    assert fetched(requests) == [f"chain_{number}-1.1-py3-none-any.whl" for number in range(5)]


def test_dead_ends_are_never_downloaded(installer: Installer, server: Server) -> None:
    """Going back over the versions of a project costs their metadata; only the wheels that were chosen come."""
    with noting(server) as requests:
        installer.install("puzzle")
    assert_resolved_first(requests)
    assert len([one for one in requests if one.path.startswith("/packages/left-")]) > 5
    chosen = ("base-1.9", "extra_weight-1.0", "left-1.0", "puzzle-1.0", "right-1.0")
    assert fetched(requests) == [f"{release}-py3-none-any.whl" for release in chosen]


@pytest.mark.parametrize(("day", "version"), (("2024-03-02", "1.0"), ("2024-09-01", "1.1"), ("2024-09-02", "2.0")))
def test_later_uploads_are_left_alone(installer: Installer, day: str, version: str) -> None:
    """The newest release is taken whose files lay in the directory before that day."""
    installer.install("dated", installer.before, f"{day}T00:00:00Z")
    assert installed_version(installer.site, "dated") == version


def test_before_the_first_upload_there_is_nothing(installer: Installer) -> None:
    """The client says that it found no release, and installs none."""
    said = installer.install("dated", installer.before, "2024-03-01T00:00:00Z", ok=False)
    assert "dated" in said
    assert not list(installer.site.glob("dated*"))


def test_requirements_are_compiled_as_of_a_day(client: Callable[[str], Client], server: Server, tmp_path: Path) -> None:
    """`uv pip compile --exclude-newer` pins what `uv pip install` would have taken then."""
    (tmp_path / "wanted.txt").write_text("dated\n")
    options = ("--default-index", server.simple, "--exclude-newer", "2024-09-01T00:00:00Z", "--quiet")
    client("uv").run("pip", "compile", *options, tmp_path / "wanted.txt", "--output-file", tmp_path / "pinned.txt")
    assert "dated==1.1\n" in (tmp_path / "pinned.txt").read_text()

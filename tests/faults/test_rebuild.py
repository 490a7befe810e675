"""The catalog is lost, damaged or older than the files: the next start makes it whole from the files and the journal.

Only where the journal is lost too, what no file tells of is gone; the files are served all the same.
"""

import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.faults.answers import HTML, JSON, ask, find_false_links, list_files, list_projects
from tests.tools.attested import find_attested
from tests.tools.clients import ClientMissingError
from tests.tools.distributions import Distribution, build_sdist, build_wheel, date_file
from tests.tools.environment import clean_environment
from tests.tools.program import Program
from tests.tools.server import OPEN, Server, start_server
from tests.tools.uploads import remove, upload

LONG = bool(os.environ.get("TEST_LONG"))
TRUSTED = """
[[publisher]]
issuer = "https://token.actions.githubusercontent.com"
audience = "pypiserver-ng"
claims = { repository = "trailofbits/pypi-attestations", workflow = "release.yml" }
projects = ["pypi-*"]
"""
ATTESTED = "pypi_attestations-0.0.19.tar.gz"
PROVENANCE = f"/integrity/pypi-attestations/0.0.19/{ATTESTED}/provenance"


@dataclass(slots=True)
class House:
    """A package directory whose owner has done everything that only the catalog and its journal know of."""

    packages: Path
    start: Callable[[], Server]
    run: Callable[..., None]
    #: Path and accepted type to the bytes that everybody was shown.
    shown: dict[tuple[str, str], bytes] = field(default_factory=dict)

    @property
    def state(self) -> Path:
        return self.packages / ".pypiserver-ng"

    @property
    def catalog(self) -> Path:
        return self.state / "catalog.sqlite"

    @property
    def journal(self) -> Path:
        return self.state / "journal.jsonl"

    def look(self, server: Server) -> dict[tuple[str, str], bytes]:
        """Every page, as JSON and as HTML, and the provenance."""
        names = [*list_projects(server.url), "closed"]
        paths = ["/simple/", *(f"/simple/{name}/" for name in names)]
        shown = {(path, accept): ask(server.url, path, accept).content for path in paths for accept in (JSON, HTML)}
        # The only page that names the server itself, whose port is another after each start.
        port = server.url.rpartition(":")[2].encode()
        return {key: page.replace(port, b"PORT") for key, page in shown.items()} | {
            (PROVENANCE, JSON): ask(server.url, PROVENANCE, "*/*").content
        }


def buried(version: str) -> Distribution:
    """Other bytes than those that were deleted under this name."""
    return build_wheel("grave", version, description="other bytes")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> House:
    """Done once; every test gets it back as it was, at the same place."""
    home = tmp_path_factory.mktemp("rebuild")
    (home / "config.toml").write_text(TRUSTED)
    packages = home / "packages"
    packages.mkdir()
    environment = clean_environment(home / "home")
    program = Program(home, environment)
    arguments = (*OPEN, "--disable-fallback", "--config", str(home / "config.toml"))

    def start() -> Server:
        return start_server(*arguments, packages=packages, cwd=home, env=environment)

    def run(*args: str) -> None:
        done = program.run(*args)
        assert done.returncode == 0, done

    house = House(packages, start, run)
    fill(house)
    shutil.copytree(packages, home / "kept")
    return house


@pytest.fixture
def house(filled: House) -> Iterator[House]:
    """A house of one's own, whose servers end well."""
    servers: list[Server] = []

    def start() -> Server:
        servers.append(filled.start())
        return servers[-1]

    shutil.rmtree(filled.packages)
    shutil.copytree(filled.packages.parent / "kept", filled.packages)
    yield House(filled.packages, start, filled.run, filled.shown)
    for server in servers:
        assert server.stop() == 0
        assert "Traceback" not in server.log, server.log


def fill(house: House) -> None:
    """Uploads, files that were copied in, yanks, statuses, deletions, provenance; then the server stops."""
    for day, built in (("2021-05-06", build_wheel("copied", "1.0")), ("2022-01-02", build_sdist("copied", "1.1"))):
        (house.packages / "below").mkdir(exist_ok=True)
        date_file(built.write(house.packages / "below"), day)
    server = house.start()
    for version in ("1.0", "1.1", "2.0"):
        for build in (build_wheel, build_sdist):
            built = build("demo", version, requires_python=">=3.9", requires=["copied"])
            assert upload(server.url, built).status_code == 200
        assert upload(server.url, build_wheel("grave", version)).status_code == 200
    found = find_attested()
    if not isinstance(found, ClientMissingError):
        attestations = f"[{found[f'{ATTESTED}.publish.attestation'].decode()}]"
        answer = upload(server.url, Distribution(ATTESTED, found[ATTESTED]), attestations=attestations)
        assert answer.status_code == 200, answer.text
    house.run("yank", "demo", "1.1", "--reason", "it breaks <things>")
    house.run("yank", "demo", "2.0", "--reason", "soon taken back")
    house.run("unyank", "demo", "2.0")
    house.run("status", "copied", "deprecated", "--reason", "use demo")
    house.run("status", "closed", "quarantined", "--reason", "never here")
    assert remove(server.url, name="grave", version="1.0").status_code == 200
    house.run("delete", "grave", "1.1")
    # So that time stamps of rows and of files cannot be the same by chance.
    assert find_false_links(server.url) == []
    house.shown = house.look(server)
    assert server.stop() == 0


def expect_everything(house: House) -> Server:
    """The same bytes on every page, the same refusals, and links that are true."""
    server = house.start()
    assert house.look(server) == house.shown
    for version in ("1.0", "1.1"):
        assert upload(server.url, buried(version)).status_code == 409
    assert upload(server.url, build_wheel("closed", "1.0")).status_code == 403
    assert find_false_links(server.url) == []
    assert house.look(server) == house.shown
    return server


def spoil_middle(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3 : len(content) // 3 + 9000] = random.randbytes(9000)
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "deleted": Path.unlink,
    "random": lambda path: path.write_bytes(random.randbytes(path.stat().st_size)),
    "spoiled": spoil_middle,
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "cut-to-a-few-bytes": lambda path: os.truncate(path, 50),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
}


def test_damaged_catalog(house: House) -> None:
    """In whatever way: everything is there again, byte for byte, and a restart later too."""
    for name, damage in [*DAMAGES.items()][: None if LONG else 5]:
        print(name)
        damage(house.catalog)
        expect_everything(house).stop()
    expect_everything(house)


def test_older_catalog(house: House) -> None:
    """A copy from before uploads, yanks and deletions is brought up to the files and the journal."""
    older = house.state / "older"
    shutil.copy(house.catalog, older)
    server = house.start()
    late = build_wheel("demo", "3.0")
    assert upload(server.url, late).status_code == 200
    assert upload(server.url, build_wheel("grave", "3.0")).status_code == 200
    assert remove(server.url, name="grave", version="3.0").status_code == 200
    assert remove(server.url, name="grave", version="2.0").status_code == 200
    house.run("yank", "demo", "3.0")
    house.run("unyank", "demo", "1.1")
    house.run("status", "demo", "archived")
    house.shown = house.look(server)
    server.stop()
    older.replace(house.catalog)
    server = expect_everything(house)
    assert upload(server.url, buried("3.0")).status_code == 409
    assert upload(server.url, buried("2.0")).status_code == 409
    assert late.sha256 in {file.sha256 for file in list_files(server.url, "demo")}


def test_lost_journal(house: House) -> None:
    """It is written anew from the catalog, so that the catalog may be lost afterwards."""
    lines = sorted(house.journal.read_bytes().splitlines())
    house.journal.unlink()
    expect_everything(house).stop()
    assert sorted(house.journal.read_bytes().splitlines()) == lines
    house.catalog.unlink()
    expect_everything(house)


def test_cut_journal(house: House) -> None:
    """The end of its last line, or all but its beginning, is missing: the catalog has it."""
    for size in (house.journal.stat().st_size - 20, 300, 0):
        os.truncate(house.journal, size)
        expect_everything(house).stop()
    house.catalog.unlink()
    expect_everything(house)


def test_spoiled_journal(house: House) -> None:
    """A line that is none costs what it said and no more; the server starts."""
    lines = house.journal.read_bytes().splitlines(keepends=True)
    lines[1] = b"\xff\0 not a line\n"
    house.journal.write_bytes(b"".join(lines))
    house.catalog.unlink()
    server = house.start()
    assert find_false_links(server.url) == []
    # That line was an upload, whose file is here.
    assert house.look(server) == house.shown
    assert "is left out" in server.log


def test_both_lost(house: House) -> None:
    """Every file is served with its hash; yanks, statuses and buried names are forgotten."""
    hashes = {file.filename: file.sha256 for name in ("demo", "copied", "grave") for file in collect(house, name)}
    house.catalog.unlink()
    house.journal.unlink()
    server = house.start()
    assert find_false_links(server.url) == []
    now = {file.filename: file for name in ("demo", "copied", "grave") for file in list_files(server.url, name)}
    assert {name: file.sha256 for name, file in now.items()} == hashes
    assert {file.yanked for file in now.values()} == {None}
    assert upload(server.url, buried("1.0")).status_code == 200


def collect(house: House, name: str) -> list[Distribution]:
    """What lies in the directory of a project."""
    return [Distribution(path.name, path.read_bytes()) for path in house.packages.rglob(f"{name}-*")]


def test_all_state_lost(house: House) -> None:
    """The whole state directory is deleted: the server starts and serves what lies in the package directory."""
    shutil.rmtree(house.state)
    server = house.start()
    assert find_false_links(server.url) == []
    assert {"demo", "copied", "grave"} <= set(list_projects(server.url))

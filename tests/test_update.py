"""`update`: what is newer upstream, what is never asked for, and what is brought."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from tests.tools.distributions import build_sdist, build_wheel, make_sdist, make_wheel
from tests.tools.mirrored import Mirrored, running_mirrored
from tests.tools.program import Program
from tests.tools.server import OPEN, Serve

JSON = {"accept": "application/vnd.pypi.simple.v1+json"}

WHEEL = build_wheel("demo", "1.2")
BUILT = build_wheel("demo", "1.2", tags="cp312-cp312-win_amd64")
SDIST = build_sdist("demo", "1.2")


@pytest.fixture
def upstream() -> Iterator[Mirrored]:
    with running_mirrored() as index:
        index.add("demo", build_wheel("demo", "1.0"), build_wheel("demo", "1.1"), WHEEL, BUILT, SDIST)
        index.add("demo", build_wheel("demo", "1.3"), yanked="broken")
        index.add("demo", build_wheel("demo", "2.0rc1"))
        yield index


Update = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def update(tmp_path: Path, environment: dict[str, str], packages: Path, upstream: Mirrored) -> Update:
    make_wheel(packages, "demo", "1.0")
    program = Program(tmp_path, environment)
    return lambda *args, **env: program.run("update", "--fallback-url", upstream.url, *args, **env)


def list_files(packages: Path) -> set[str]:
    return {path.name for path in packages.iterdir() if not path.name.startswith(".")}


def test_what_is_newer_is_listed(update: Update, packages: Path) -> None:
    """The newest stable version that is not yanked, and nothing is brought."""
    done = update()
    assert (done.returncode, done.stdout, done.stderr) == (0, "demo  1.0 → 1.2  (3 files)\n", "")
    assert list_files(packages) == {"demo-1.0-py3-none-any.whl"}


def test_it_is_brought(update: Update, serve: Serve, packages: Path) -> None:
    """All wheels and the sdist; a running server shows them, older versions stay, and then there is nothing newer."""
    server = serve(*OPEN, "--disable-fallback")
    done = update("-x")
    assert done.returncode == 0, done
    assert list_files(packages) == {"demo-1.0-py3-none-any.whl", WHEEL.filename, BUILT.filename, SDIST.filename}
    versions = httpx2.get(f"{server.simple}demo/", headers=JSON).json()["versions"]
    assert versions == ["1.0", "1.2"]
    done = update("--execute")
    assert (done.returncode, done.stdout) == (0, "nothing newer\n")


FOR_TARGETS: dict[str, tuple[tuple[str, ...], str, set[str]]] = {
    "a platform": (("--platform", "win_amd64"), "1.2  (2 files)", {WHEEL.filename, BUILT.filename}),
    "another": (("--platform", "macosx_14_0_arm64"), "1.2  (1 file)", {WHEEL.filename}),
    "a python": (("--python", "3.12"), "1.2  (2 files)", {WHEEL.filename, BUILT.filename}),
    "two": (("--python", "3.11", "--python", "3.12"), "1.2  (2 files)", {WHEEL.filename, BUILT.filename}),
    "one that it does not take": (("--python", "3.9"), "1.1  (1 file)", {"demo-1.1-py3-none-any.whl"}),
}


@pytest.mark.parametrize("case", FOR_TARGETS)
def test_for_other_machines(update: Update, upstream: Mirrored, packages: Path, case: str) -> None:
    """The newest version that has a file for one of them, and what of it fits."""
    options, line, files = FOR_TARGETS[case]
    upstream.add("demo", WHEEL, BUILT, SDIST, requires_python=">=3.10")
    done = update("-x", *options)
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, f"demo  1.0 → {line}")
    assert list_files(packages) - {"demo-1.0-py3-none-any.whl"} == files


def test_the_sdist_where_no_wheel_fits(update: Update, upstream: Mirrored, packages: Path) -> None:
    source = build_sdist("other", "2.0")
    make_wheel(packages, "other", "1.0")
    upstream.add("other", build_wheel("other", "2.0", tags="cp312-cp312-win_amd64"), source)
    upstream.add("other", build_wheel("other", "3.0", tags="cp312-cp312-win_amd64"))
    assert update("-x", "--python", "3.13", "other").returncode == 0
    assert source.filename in list_files(packages)


UNSTABLE = {
    "not by itself": ("1.0", (), "demo  1.0 → 1.2  (3 files)"),
    "on demand": ("1.0", ("-u",), "demo  1.0 → 2.0rc1  (1 file)"),
    "where one is here": ("1.2b1", (), "demo  1.2b1 → 2.0rc1  (1 file)"),
    "newer than all": ("3.0", ("-u",), "nothing newer"),
    "local version": ("1.2+acme", (), "nothing newer"),
}


@pytest.mark.parametrize("case", UNSTABLE)
def test_unstable_versions(update: Update, packages: Path, case: str) -> None:
    here, options, expected = UNSTABLE[case]
    make_wheel(packages, "demo", here)
    assert update(*options).stdout == f"{expected}\n"


RULES = {
    "reserve": ("", ("--reserve", "acme-*")),
    "no upstream": ('[[policy]]\nprojects = ["acme-*"]\nupstream = []\n', ()),
    "denied": ('[[policy]]\nprojects = ["*"]\ndeny = ["acme-*"]\n', ()),
    "ignored": ("", ("--ignorelist-file", "ignored.txt")),
    "blacklist": ("", ("--blacklist-file", "ignored.txt")),
    "named": ("", ("demo",)),
    "quarantined": ("", ()),
    "archived": ("", ()),
}


@pytest.mark.parametrize("case", RULES)
def test_who_is_never_asked_for(
    update: Update, packages: Path, upstream: Mirrored, tmp_path: Path, environment: dict[str, str], case: str
) -> None:
    """Nothing of the name leaves."""
    config, options = RULES[case]
    (tmp_path / "config.toml").write_text(f'fallback-mode = "cache"\n{config}')
    (tmp_path / "ignored.txt").write_text("# private\nAcme_Core  # ours\n\n")
    make_wheel(packages, "acme-core", "1.0")
    if case in {"quarantined", "archived"}:
        assert Program(tmp_path, environment).run("status", "acme-core", case).returncode == 0
    done = update("--config", "config.toml", *options)
    assert (done.returncode, done.stdout) == (0, "demo  1.0 → 1.2  (3 files)\n"), done
    assert {request.path for request in upstream.requests} == {"/simple/demo/"}


def test_private_projects_are_asked_for(update: Update, packages: Path, upstream: Mirrored) -> None:
    """As its help says; that upstream knows none of this name is no failure."""
    make_wheel(packages, "acme-core", "1.0")
    done = update()
    assert (done.returncode, done.stderr) == (0, "")
    assert upstream.count_pages("acme-core") == 1
    assert "private" in update("--help").stdout


def test_one_that_is_kept_from_upstream_is_named_where_somebody_asks(update: Update, packages: Path) -> None:
    make_wheel(packages, "acme-core", "1.0")
    done = update("--reserve", "acme-*", "acme-core")
    assert (done.returncode, done.stderr) == (1, "pypiserver-ng: error: reserve acme-* keeps acme-core from upstream\n")
    done = update("nope")
    assert (done.returncode, "nope has no file here" in done.stderr) == (1, True)


def test_the_cooldown_holds(update: Update, upstream: Mirrored) -> None:
    upstream.add("demo", build_wheel("demo", "1.4"), upload_time="2999-01-01T00:00:00Z")
    assert update().stdout == "demo  1.0 → 1.4  (1 file)\n"
    assert update("--cooldown", "4d").stdout == "demo  1.0 → 1.2  (3 files)\n"


@pytest.mark.parametrize("is_kept", (False, True), ids=("cold", "kept"))
def test_failures_are_named(update: Update, packages: Path, upstream: Mirrored, is_kept: bool) -> None:
    """By project, also where an old page could be answered; the rest is done."""
    make_wheel(packages, "other", "1.0")
    upstream.add("other", build_wheel("other", "2.0"))
    if is_kept:
        update()
        # What was asked a moment ago is not asked again.
        for page in (packages / ".pypiserver-ng" / "cache" / "pages").glob("*/other"):
            os.utime(page, (1_600_000_000, 1_600_000_000))
    upstream.spoil("/simple/other/", status=500)
    done = update()
    assert (done.returncode, done.stdout) == (1, "demo  1.0 → 1.2  (3 files)\n"), done
    [line] = done.stderr.splitlines()
    assert line.startswith("pypiserver-ng: error: other: ")


def test_a_directory_as_pypiserver_takes_it(update: Update, tmp_path: Path, packages: Path) -> None:
    """With and without ``--``."""
    make_wheel(tmp_path / "elsewhere", "demo", "1.1")
    assert update("elsewhere").stdout == "demo  1.1 → 1.2  (3 files)\n"
    assert update("demo", "--", "elsewhere").stdout == "demo  1.1 → 1.2  (3 files)\n"
    assert update("-x", "--", "elsewhere").returncode == 0
    assert WHEEL.filename in list_files(tmp_path / "elsewhere")
    assert list_files(packages) == {"demo-1.0-py3-none-any.whl"}


def test_bad_usage(tmp_path: Path, packages: Path, environment: dict[str, str]) -> None:
    program = Program(tmp_path, environment)
    assert "ignore list" in program.refuse("update", "--ignorelist-file", "nowhere.txt")
    (tmp_path / "ignored.txt").write_text("not a name\n")
    assert "ignore list" in program.refuse("update", "--ignorelist-file", "ignored.txt")
    assert "neither" in program.refuse("update", "not a name")
    assert "--disable-fallback" in program.refuse("update", "--disable-fallback")


def test_odd_files_are_no_versions(update: Update, packages: Path) -> None:
    """What has no version that can be compared is left alone."""
    make_sdist(packages, "old", "1.0").rename(packages / "old.zip")
    (packages / "odd-x.y.tar.gz").write_bytes(b"x")
    done = update()
    assert (done.returncode, done.stdout) == (0, "demo  1.0 → 1.2  (3 files)\n"), done

"""`fetch`: real resolvers, lock files, and what a running server and the directory show afterwards."""

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import httpx2
import pytest

from pypiserver_ng.cli.bringing import describe_coming, describe_size
from pypiserver_ng.errors import Invalid
from pypiserver_ng.index.lockfiles import read_lock
from pypiserver_ng.index.requirements import Requirements, read_requirements
from pypiserver_ng.index.resolving import Index, Resolver, Unresolvable, choose_lines
from pypiserver_ng.index.targets import combine_targets
from tests.tools.clients import Client, installed_version
from tests.tools.distributions import Distribution, build_sdist, build_wheel, make_wheel
from tests.tools.mirrored import Mirrored, running_mirrored
from tests.tools.program import Program
from tests.tools.server import OPEN, Serve, wait_until

JSON = {"accept": "application/vnd.pypi.simple.v1+json"}

APP = build_wheel("demo-app", "1.0", requires=["Mid.Lib>=1", 'win-lib; sys_platform == "win32"'])
MID = build_sdist("Mid.Lib", "1.0", requires=["low-lib"])
LOW = build_wheel("low-lib", "1.5")
WINDOWS = build_wheel("win-lib", "1.0", tags="cp312-cp312-win_amd64")
LINUX = build_wheel("win-lib", "1.0", tags="cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64")
SOURCE = build_sdist("win-lib", "1.0")


@pytest.fixture
def upstream() -> Iterator[Mirrored]:
    with running_mirrored() as index:
        index.add("demo-app", APP, upload_time="2021-03-04T05:06:07.654321Z")
        index.add("mid-lib", MID)
        index.add("low-lib", LOW)
        index.add("win-lib", WINDOWS, LINUX, SOURCE)
        yield index


@pytest.fixture
def fetch(
    tmp_path: Path, environment: dict[str, str], packages: Path, upstream: Mirrored
) -> Callable[..., subprocess.CompletedProcess[str]]:
    program = Program(tmp_path, environment)

    def run(*args: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
        where = () if "--config" in args else ("--fallback-url", upstream.url)
        return program.run("fetch", *where, *args, **env)

    return run


Fetch = Callable[..., subprocess.CompletedProcess[str]]


def list_files(packages: Path) -> set[str]:
    return {path.name for path in packages.iterdir() if not path.name.startswith(".")}


def names(*distributions: Distribution) -> set[str]:
    return {one.filename for one in distributions}


def test_the_closure_is_brought(fetch: Fetch, packages: Path) -> None:
    """With every byte, what became local, the totals, and upstream's upload time; a second time does nothing."""
    done = fetch("Demo_App")
    assert done.returncode == 0, done
    assert list_files(packages) == names(APP, MID, LOW)
    assert not list((packages / ".pypiserver-ng" / "scratch").iterdir())
    for one in (APP, MID, LOW):
        assert (packages / one.filename).read_bytes() == one.content
    assert (packages / APP.filename).stat().st_mtime_ns == 1_614_834_367_654_321_000
    total = sum(len(one.content) for one in (APP, MID, LOW))
    assert done.stderr == f"bringing 3 files, {describe_size(total)}\n"
    lines = done.stdout.splitlines()
    assert lines[0] == f"brought {APP.filename} ({len(APP.content)} B)"
    assert "hidden: demo-app, low-lib, mid-lib" in lines[3]
    assert [line.partition(" (")[0] for line in lines[4:]] == ["3 files"]
    again = fetch("demo-app")
    assert (again.returncode, again.stdout, again.stderr) == (
        0,
        "0 files (0 B) brought into the first package directory, 3 there already\n",
        "",
    )


COMING = {
    "known": ((312, 2_255_000_000, 0), "312 files, 2.1 GiB"),
    "of some": ((2, 700, 1), "2 files, at least 700 B"),
    "unknown": ((1, 0, 1), "1 file"),
    "nothing": ((1, 0, 0), "1 file, 0 B"),
}


@pytest.mark.parametrize("case", COMING)
def test_what_is_coming(case: str) -> None:
    """As far as the upstream says how much it is."""
    known, text = COMING[case]
    assert describe_coming(*known) == text


def test_a_running_server_follows(fetch: Fetch, serve: Serve, packages: Path, upstream: Mirrored) -> None:
    """In its next answer, with all facts; the upload time passes on."""
    server = serve(*OPEN, "--disable-fallback")
    assert httpx2.get(f"{server.simple}demo-app/").status_code == 404
    assert fetch("demo-app", "--no-deps").returncode == 0
    page = httpx2.get(f"{server.simple}demo-app/", headers=JSON)
    [file] = page.json()["files"]
    assert file["hashes"]["sha256"] == APP.sha256
    assert file["upload-time"] == "2021-03-04T05:06:07.654321Z"
    assert file["core-metadata"]
    assert list_files(packages) == names(APP)


@pytest.mark.clients
def test_without_upstream_afterwards(
    fetch: Fetch, serve: Serve, upstream: Mirrored, client: Callable[[str], Client], tmp_path: Path
) -> None:
    """That is what people bring files in for."""
    assert fetch("demo-app").returncode == 0
    upstream.stop()
    server = serve(*OPEN, "--disable-fallback")
    client("pip").run("install", "--index-url", server.simple, "--target", tmp_path / "site", "demo-app")
    assert installed_version(tmp_path / "site", "low_lib") == "1.5"


def test_for_other_machines(fetch: Fetch, packages: Path) -> None:
    """Each Python on each platform, with the dependencies that its markers name."""
    platforms = ("--platform", "win_amd64", "--platform", "manylinux_2_28_x86_64")
    done = fetch("--python", "3.12", *platforms, "win-lib")
    assert done.returncode == 0, done
    assert list_files(packages) == names(WINDOWS, LINUX)


def test_markers_are_those_of_the_target(fetch: Fetch, packages: Path, upstream: Mirrored) -> None:
    """The resolver itself goes by the machine that it runs on."""
    upstream.add("mid-lib", build_wheel("mid-lib", "1.0"))
    assert fetch("--python", "3.12", "--platform", "win_amd64", "demo-app").returncode == 0
    assert list_files(packages) == {*names(APP, WINDOWS), "mid_lib-1.0-py3-none-any.whl"}


def test_into_the_cache_only(fetch: Fetch, serve: Serve, packages: Path, upstream: Mirrored) -> None:
    """Nothing becomes local; it is all there without the upstream."""
    done = fetch("--cache-only", "demo-app")
    assert (done.returncode, "hidden" in done.stdout) == (0, False), done
    assert list_files(packages) == set()
    upstream.stop()
    server = serve(*OPEN, "--fallback-mode", "cache", "--fallback-url", upstream.url)
    assert httpx2.get(f"{server.url}/packages/-/{APP.sha256}/{APP.filename}").content == APP.content
    assert "3 there already" in fetch("--cache-only", "demo-app").stdout


def test_bytes_are_not_kept_twice(fetch: Fetch, packages: Path) -> None:
    """But where they were in the cache before, which somebody may have wanted."""
    cache = packages / ".pypiserver-ng" / "cache" / "files"
    assert fetch("--cache-only", "low-lib").returncode == 0
    assert fetch("demo-app").returncode == 0
    assert {path.name for path in cache.rglob("*.whl")} == names(LOW)
    assert list_files(packages) == names(APP, MID, LOW)


# Rules


def test_what_is_local_is_left_alone(fetch: Fetch, packages: Path) -> None:
    """The resolver sees what every client sees."""
    make_wheel(packages, "low-lib", "1.0")
    assert fetch("demo-app").returncode == 0
    assert "low_lib-1.0-py3-none-any.whl" in list_files(packages)
    assert LOW.filename not in list_files(packages)
    done = fetch("low-lib==1.5")
    assert done.returncode == 1
    assert "note: low-lib has files here" in done.stderr


RULES = {
    "reserved": (("--reserve", "low-*"), "reserved"),
    "withheld": (("--cooldown", "4d"), "withheld"),
}


@pytest.mark.parametrize("case", RULES)
def test_rules_hold_for_the_resolver(fetch: Fetch, packages: Path, upstream: Mirrored, case: str) -> None:
    """And the reason is said; nothing is brought then."""
    options, reason = RULES[case]
    upstream.add("low-lib", LOW, upload_time="2999-01-01T00:00:00Z")
    done = fetch("low-lib", *options)
    assert done.returncode == 1
    assert "No matching distribution found for low-lib" in done.stderr
    assert reason in done.stderr.splitlines()[-2]
    assert done.stderr.splitlines()[-1] == "pypiserver-ng: error: pip finds no files that fulfil the requirements"
    assert list_files(packages) == set()


def test_rules_of_the_configuration_file(fetch: Fetch, packages: Path, upstream: Mirrored, tmp_path: Path) -> None:
    """Also of one that redirects clients, and with closed pages."""
    config = tmp_path / "config.toml"
    config.write_text(
        f'authenticate = ["list", "download"]\n[[upstream]]\nname = "public"\nurl = "{upstream.url}"\n'
        '[[policy]]\nprojects = ["mid-lib"]\nupstream = []\n[[policy]]\nprojects = ["low-*"]\nmode = "redirect"\n'
    )
    assert fetch("--config", config, "low-lib").returncode == 0
    assert list_files(packages) == names(LOW)
    done = fetch("--config", config, "mid-lib")
    assert (done.returncode, "gives it no upstream" in done.stderr) == (1, True), done


def test_directories_that_it_was_not_told_of(fetch: Fetch, serve: Serve, tmp_path: Path) -> None:
    """A running server knows more of them: nothing in them stops being local meanwhile."""
    make_wheel(tmp_path / "second", "low-lib", "1.0")
    server = serve("second", *OPEN, "--disable-fallback")
    assert fetch("demo-app", "--no-deps").returncode == 0
    assert fetch("low-lib").returncode == 1
    [file] = httpx2.get(f"{server.simple}low-lib/", headers=JSON).json()["files"]
    assert file["filename"] == "low_lib-1.0-py3-none-any.whl"


# Isolation

LEAKS = {
    "index": {"PIP_INDEX_URL": "http://127.0.0.1:9/simple/", "PIP_RETRIES": "0"},
    "extra": {"PIP_EXTRA_INDEX_URL": "http://127.0.0.1:9/simple/", "PIP_NO_DEPS": "1"},
    "constraint": {"PIP_CONSTRAINT": "/nowhere/constraints.txt"},
    "proxy": {"HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"},
}


@pytest.mark.parametrize("case", LEAKS)
def test_nothing_of_the_machine_counts(fetch: Fetch, packages: Path, environment: dict[str, str], case: str) -> None:
    """Neither variables nor files."""
    config = Path(environment["HOME"], "config", "pip", "pip.conf")
    config.parent.mkdir(parents=True)
    config.write_text("[global]\nindex-url = http://127.0.0.1:9/simple/\nno-deps = true\n")
    del environment["PIP_CONFIG_FILE"]
    done = fetch("demo-app", **LEAKS[case])
    assert done.returncode == 0, done
    assert list_files(packages) == names(APP, MID, LOW)


# Requirements files


def test_a_requirements_file(fetch: Fetch, packages: Path, tmp_path: Path) -> None:
    """With those that it names; what leads elsewhere is named and left out, without passwords."""
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "base.txt").write_text("low-lib>1 \\\n  ,<2   # why\n-c limits.txt\n")
    (tmp_path / "more" / "limits.txt").write_text("low-lib<9\n")
    (tmp_path / "requirements.txt").write_text(
        "# comment\n--extra-index-url https://u:secret@other.example/simple/\n-r more/base.txt\n-e .\n"
        "git-lib @ git+https://u:secret@other.example/x.git\nmid-lib==1.0\nfl@sk\n"
    )
    done = fetch("-r", "requirements.txt")
    assert done.returncode == 0, done
    assert list_files(packages) == names(MID, LOW)
    left_out = [line for line in done.stderr.splitlines() if line.startswith("left out")]
    assert [line.split()[2] for line in left_out] == ["--extra-index-url:", "-e", "git-lib", "fl@sk:"]
    assert "secret" not in done.stderr


@pytest.mark.parametrize("right", (True, False), ids=("right", "wrong"))
def test_hashes_in_a_requirements_file(fetch: Fetch, packages: Path, tmp_path: Path, right: bool) -> None:
    """The resolver checks them."""
    (tmp_path / "requirements.txt").write_text(
        f"low-lib==1.5 \\\n    --hash=sha256:{'1' * 64} \\\n    --hash=sha256:{LOW.sha256 if right else '0' * 64}\n"
    )
    done = fetch("-r", "requirements.txt")
    assert (done.returncode, list_files(packages)) == ((0, names(LOW)) if right else (1, set())), done


BAD_REQUIREMENTS = {
    "not one": ("demo app\n", "'demo app' is not a requirement"),
    "unknown option": ("--frobnicate\n", "--frobnicate"),
    "itself": ("-r requirements.txt\n", "name it again"),
    "missing": ("-r nowhere.txt\n", "nowhere.txt"),
}


@pytest.mark.parametrize("case", BAD_REQUIREMENTS)
def test_requirements_that_are_refused(tmp_path: Path, case: str) -> None:
    text, message = BAD_REQUIREMENTS[case]
    path = tmp_path / "requirements.txt"
    path.write_text(text)
    with pytest.raises(Invalid, match=message):
        read_requirements(path)


def test_the_help_knows_that_it_caches(tmp_path: Path, environment: dict[str, str]) -> None:
    """Whatever the server does."""
    program = Program(tmp_path, environment)
    shown = {name: " ".join(program.run(name, "--help").stdout.split()) for name in ("run", "fetch", "update")}
    assert [("--cooldown" in text, "Cache mode only" in text) for text in shown.values()] == [
        (True, True),
        (True, False),
        (True, False),
    ]


BAD_USAGE = {
    "nothing": ((), "nothing to fetch"),
    "a directory": (("packages",), "put -- before PACKAGE_DIR"),
    "an address": (("fl@sk",), "not a project of an index"),
    "a URL": (("https://mirror.example/demo-1.0.tar.gz",), "not a project"),
    "a file": (("-r", "nowhere.txt"), "cannot read"),
    "another lock": (("-r", "poetry.lock"), "export it"),
    "a python": (("--python", "three", "demo"), "--python"),
    "a platform": (("--platform", "plan9", "demo"), "--platform"),
    "no fallback": (("demo", "--disable-fallback"), "--disable-fallback"),
}


@pytest.mark.parametrize("case", BAD_USAGE)
def test_bad_usage(tmp_path: Path, packages: Path, environment: dict[str, str], case: str) -> None:
    (tmp_path / "poetry.lock").touch()
    args, message = BAD_USAGE[case]
    assert message in Program(tmp_path, environment).refuse("fetch", *args)
    assert list(packages.iterdir()) == []


# Lock files


def lock_with_uv(upstream: str, *distributions: Distribution) -> str:
    """As uv writes it; the URLs lead nowhere."""
    lines = ['version = 1\nrequires-python = ">=3.11"\n']
    wheels = [one for one in distributions if one.filename.endswith(".whl")]
    lines += [f"sdist = {uv_file(one)}" for one in distributions if one not in wheels]
    listed = ",\n".join(uv_file(one) for one in wheels)
    name, version = distributions[0].filename.split("-")[:2]
    head = f'[[package]]\nname = "{name.replace("_", "-")}"\nversion = "{version.removesuffix(".tar.gz")}"\n'
    source = f'source = {{ registry = "{upstream}" }}\n'
    return "\n".join([lines[0], head + source, *lines[1:], f"wheels = [{listed}]\n"])


def uv_file(one: Distribution) -> str:
    return f'{{ url = "https://other.example/files/{one.filename}", hash = "sha256:{one.sha256}", size = 1 }}'


EDITABLE = '\n[[package]]\nname = "consumer"\nversion = "0"\nsource = { editable = "." }\n'


def test_a_lock_of_uv(fetch: Fetch, packages: Path, upstream: Mirrored, tmp_path: Path) -> None:
    """All its files, by project, name and hash; what is no index's is named."""
    (tmp_path / "uv.lock").write_text(lock_with_uv(upstream.url, WINDOWS, LINUX, SOURCE) + EDITABLE)
    done = fetch("-r", "uv.lock")
    assert done.returncode == 0, done
    assert list_files(packages) == names(WINDOWS, LINUX)
    assert "left out: consumer 0: it comes from editable '.', not from an index\n" in done.stderr


def test_a_lock_brings_what_is_missing(fetch: Fetch, packages: Path, upstream: Mirrored, tmp_path: Path) -> None:
    """Also of a project that is local by now."""
    WINDOWS.write(packages)
    (tmp_path / "uv.lock").write_text(lock_with_uv(upstream.url, WINDOWS, LINUX))
    done = fetch("-r", "uv.lock")
    assert (done.returncode, "1 file (" in done.stdout, "1 there already" in done.stdout) == (0, True, True), done
    assert list_files(packages) == names(WINDOWS, LINUX)


def test_other_bytes_are_an_error_of_their_file(
    fetch: Fetch, packages: Path, upstream: Mirrored, tmp_path: Path
) -> None:
    """Whether the upstream or the directory has them; the rest is done, and nothing is replaced."""
    other = build_wheel("win-lib", "1.0", tags="cp312-cp312-win_amd64", description="other")
    other.write(packages)
    locked = lock_with_uv(upstream.url, WINDOWS, LINUX, SOURCE)
    (tmp_path / "uv.lock").write_text(locked)
    done = fetch("-r", "uv.lock")
    assert (done.returncode, list_files(packages)) == (1, names(WINDOWS, LINUX)), done
    assert (packages / WINDOWS.filename).read_bytes() == other.content
    assert f"pypiserver-ng: error: {WINDOWS.filename}: other bytes are here under this name" in done.stderr
    (packages / WINDOWS.filename).unlink()
    (packages / LINUX.filename).unlink()
    (tmp_path / "uv.lock").write_text(locked.replace(LINUX.sha256, "0" * 64))
    done = fetch("-r", "uv.lock")
    assert (done.returncode, list_files(packages)) == (1, names(WINDOWS)), done
    assert f"error: {LINUX.filename}: " in done.stderr


@pytest.mark.parametrize("right", (True, False), ids=("right", "wrong"))
def test_the_lock_counts_where_the_upstream_gives_no_hash(
    fetch: Fetch, packages: Path, upstream: Mirrored, tmp_path: Path, right: bool
) -> None:
    """A hash that only the lock names is checked all the same, whatever its kind."""
    upstream.look.hashes = False
    digest = hashlib.sha512(LOW.content).hexdigest() if right else "0" * 128
    (tmp_path / "pylock.toml").write_text(pylock(LOW, f'sha512 = "{digest}"'))
    done = fetch("-r", "pylock.toml")
    assert (done.returncode, list_files(packages)) == ((0, names(LOW)) if right else (1, set())), done


def pylock(one: Distribution, hashes: str, marker: str = "") -> str:
    name = one.filename.split("-")[0].replace("_", "-")
    return (
        f'lock-version = "1.0"\ncreated-by = "tests"\n[[packages]]\nname = "{name}"\nversion = "1.5"\n{marker}\n'
        f'[[packages.wheels]]\nname = "{one.filename}"\nurl = "https://other.example/x"\nhashes = {{ {hashes} }}\n'
        '[[packages]]\nname = "local"\ndirectory = { path = "." }\n'
    )


def select(name: str, text: str, *args: str) -> tuple[set[str], tuple[str, ...]]:
    pythons, platforms = [arg for arg in args if arg[0] == "3"], [arg for arg in args if arg[0] != "3"]
    found = read_lock(name, text.encode(), combine_targets(pythons, platforms))
    assert found is not None
    return {one.filename for one in found.wanted}, found.left_out


ANY = build_wheel("win-lib", "1.0")
ABI3 = build_wheel("win-lib", "1.0", tags="cp38-abi3-macosx_11_0_arm64")
MUSL = build_wheel("win-lib", "1.0", tags="cp312-cp312-musllinux_1_1_aarch64")
FITTING = {
    "all": ((WINDOWS, LINUX, ABI3, MUSL, SOURCE), (), (WINDOWS, LINUX, ABI3, MUSL)),
    "a python": ((WINDOWS, LINUX, ABI3, SOURCE), ("3.13",), (ABI3,)),
    "a platform": ((WINDOWS, LINUX, ABI3, SOURCE), ("win_amd64",), (WINDOWS,)),
    "an older glibc": ((LINUX, SOURCE), ("manylinux_2_16_x86_64",), (SOURCE,)),
    "a newer glibc": ((LINUX, SOURCE), ("manylinux_2_39_x86_64",), (LINUX,)),
    "another machine": ((LINUX, SOURCE), ("manylinux_2_39_aarch64",), (SOURCE,)),
    "a mac": ((ABI3, SOURCE), ("macosx_14_0_arm64", "3.12"), (ABI3,)),
    "an older mac": ((ABI3, SOURCE), ("macosx_10_15_x86_64", "3.12"), (SOURCE,)),
    "musl": ((MUSL, LINUX), ("musllinux_1_2_aarch64",), (MUSL,)),
    "anywhere": ((ANY, SOURCE), ("win32", "3.14"), (ANY,)),
    "two": ((WINDOWS, LINUX, ABI3), ("win_amd64", "macosx_14_0_arm64", "3.12"), (WINDOWS, ABI3)),
}


@pytest.mark.parametrize("case", FITTING)
def test_what_fits(case: str) -> None:
    locked, targets, expected = FITTING[case]
    assert select("uv.lock", lock_with_uv("https://mirror.example/simple", *locked), *targets) == (
        names(*expected),
        (),
    )


def test_what_fits_nowhere_is_named() -> None:
    _, left_out = select("uv.lock", lock_with_uv("x", WINDOWS), "macosx_14_0_arm64")
    assert left_out == ("win-lib 1.0: no wheel of it fits, and it has no sdist",)


GROUPS = 'created-by = "tests"\ndependency-groups = ["dev"]'


def test_every_group_of_a_pylock_is_brought() -> None:
    """Nobody is asked to choose."""
    text = pylock(LOW, f'sha256 = "{LOW.sha256}"', "marker = \"'dev' in dependency_groups\"")
    wanted, _ = select("pylock.toml", text.replace('created-by = "tests"', GROUPS), "3.12", "win_amd64")
    assert wanted == names(LOW)


MARKERS = {
    "none": ("", ("3.12", "win_amd64"), True),
    "fits": ("marker = \"sys_platform == 'win32'\"", ("3.12", "win_amd64"), True),
    "does not": ("marker = \"sys_platform == 'win32'\"", ("3.12", "manylinux_2_28_x86_64"), False),
    "unknown": ("marker = \"sys_platform == 'win32'\"", ("3.12",), True),
    "group": ("marker = \"'dev' in dependency_groups\"", ("3.12", "win_amd64"), False),
    "python": ('requires-python = ">=3.13"', ("3.12",), False),
}


@pytest.mark.parametrize("case", MARKERS)
def test_markers_of_a_pylock(case: str) -> None:
    """Where the target does not say enough to know, the file is brought."""
    marker, targets, is_wanted = MARKERS[case]
    wanted, left_out = select("pylock.dev.toml", pylock(LOW, f'sha256 = "{LOW.sha256}"', marker), *targets)
    assert wanted == (names(LOW) if is_wanted else set())
    assert left_out == ("local: it comes from a directory, not from an index",)


def lock_in_forks(*forks: tuple[str, Distribution]) -> str:
    """Several versions of one package, each with its markers."""
    packages = [(markers, lock_with_uv("x", one).partition("[[package]]\n")[2]) for markers, one in forks]
    return "version = 1\n" + "".join(
        f"[[package]]\nresolution-markers = {markers}\n{rest}" for markers, rest in packages
    )


OLD = build_wheel("low-lib", "1.0")
FORKS: dict[str, tuple[tuple[str, str], tuple[str, ...], tuple[Distribution, ...]]] = {
    "older": (("python_full_version < '3.12'", "python_full_version >= '3.12'"), ("3.11",), (OLD,)),
    "newer": (("python_full_version < '3.12'", "python_full_version >= '3.12'"), ("3.12",), (LOW,)),
    "both": (("python_full_version < '3.12'", "python_full_version >= '3.12'"), ("3.11", "3.12"), (OLD, LOW)),
    "anything": (("python_full_version < '3.12'", "python_full_version >= '3.12'"), (), (OLD, LOW)),
    "half unknown": (
        ("python_full_version < '3.12' and sys_platform == 'win32'", "python_full_version >= '3.12'"),
        ("3.12",),
        (LOW,),
    ),
    "unknown": (("sys_platform == 'win32'", "sys_platform != 'win32'"), ("3.12",), (OLD, LOW)),
    "an extra": (("extra == 'extra-4-demo-cpu' and sys_platform == 'win32'", "extra != 'x'"), ("win32",), (OLD, LOW)),
    "one of two": (("sys_platform == 'darwin'\", \"sys_platform == 'win32'", "os_name != 'nt'"), ("win32",), (OLD,)),
}


@pytest.mark.parametrize("case", FORKS)
def test_forks_of_a_lock_of_uv(case: str) -> None:
    """The version that is for the target; what it does not decide is brought."""
    markers, targets, expected = FORKS[case]
    text = lock_in_forks(*((f'["{one}"]', file) for one, file in zip(markers, (OLD, LOW), strict=True)))
    assert select("uv.lock", text, *targets) == (names(*expected), ())


NO_LOCKS = {
    "requirements": ("requirements.txt", b"demo==1.0\n", None),
    "names": ("constraints.in", b"# nothing\n", None),
    "by content": ("frozen.toml", b'lock-version = "1.0"\ncreated-by = "x"\npackages = []\n', ()),
    "broken": ("uv.lock", b"demo==1.0\n", "not valid TOML"),
    "a later one": ("pylock.toml", b'lock-version = "2.0"\ncreated-by = "x"\npackages = []\n', "cannot be read|can be"),
    "something else": ("pyproject.toml", b'[project]\nname = "x"\n', "neither"),
    "no name": ("uv.lock", b"version = 1\n[[package]]\n", "has no name"),
    "no marker": ("uv.lock", lock_in_forks(('["x y"]', LOW)).encode(), "low-lib 1.5 has a marker that is none"),
}


@pytest.mark.parametrize("case", NO_LOCKS)
def test_which_files_are_locks(case: str) -> None:
    name, content, expected = NO_LOCKS[case]
    if isinstance(expected, str):
        with pytest.raises(Invalid, match=expected):
            read_lock(name, content, combine_targets((), ()))
        return
    found = read_lock(name, content, combine_targets((), ()))
    assert (None if found is None else found.wanted) == expected


# uv in the place of pip


@pytest.mark.clients
@pytest.mark.parametrize("target", ((), ("3.12", "win_amd64")), ids=("here", "elsewhere"))
def test_uv_resolves_where_there_is_no_pip(
    serve: Serve, upstream: Mirrored, client: Callable[[str], Client], target: tuple[str, ...]
) -> None:
    server = serve(*OPEN, "--fallback-mode", "cache", "--fallback-url", upstream.url)
    resolver = Resolver("uv", client("uv").command)
    upstream.add("mid-lib", build_wheel("mid-lib", "1.0"))
    targets = combine_targets(target[:1], target[1:])
    found = asyncio.run(resolver.resolve(Requirements(["demo-app"]), targets, Index(server.url)))
    expected = {APP.filename: APP.sha256, "mid_lib-1.0-py3-none-any.whl": None}
    expected |= {WINDOWS.filename: WINDOWS.sha256} if target else {}
    assert {one.filename for one in found.wanted} == expected.keys()
    assert all(one.hashes["sha256"] == expected[one.filename] for one in found.wanted if expected[one.filename])
    with pytest.raises(Unresolvable) as refused:
        asyncio.run(resolver.resolve(Requirements(["nope"]), targets, Index(server.url)))
    assert "nope" in refused.value.wanted


def test_the_lines_that_matter() -> None:
    """Of what a resolver says; nothing of its progress, and its own addresses are taken out before."""
    text = "Looking in indexes: x\nCollecting a\nERROR: Cannot install a\n\nThe conflict is caused by:\n    a needs b\n"
    assert choose_lines(text) == ["Cannot install a", "The conflict is caused by:", "    a needs b"]


def test_many_versions_are_shortened() -> None:
    """To the last ten that pip names; ten are no longer list."""
    many = [f"1.{number}" for number in range(12)]
    line = "Could not find a version that satisfies the requirement demo==9 (from versions: {})"
    texts = {
        line.format(", ".join(many)): line.format(", ".join(many[2:]) + " … and 2 more"),
        line.format(", ".join(many[2:])): line.format(", ".join(many[2:])),
        line.format("none"): line.format("none"),
        f"Ignored the following yanked versions: {', '.join(many)}": (
            f"Ignored the following yanked versions: {', '.join(many[2:])} … and 2 more"
        ),
    }
    python = "Ignored the following versions that require a different python version: "
    requiring = [f"{version} Requires-Python >=3.6,<3.9" for version in many]
    texts[python + "; ".join(requiring)] = f"{python}{'; '.join(requiring[2:])} … and 2 more"
    assert choose_lines("\n".join(f"ERROR: {text}" for text in texts)) == list(texts.values())


WANTED = {
    "pip": ("Could not find a version that satisfies the requirement Low_Lib==1.5 (from versions: 1.0)", "1.5"),
    "an extra": ("No matching distribution found for low-lib[x]==1!1.5+a.b", "1!1.5+a.b"),
    "any": ("No matching distribution found for low-lib", None),
    "a range": ("No matching distribution found for low-lib>=2", None),
    "uv": ("Because there is no version of low-lib==1.5 and you require low-lib==1.5, we can conclude", "1.5"),
}


@pytest.mark.parametrize("case", WANTED)
def test_what_was_wanted(case: str) -> None:
    line, version = WANTED[case]
    assert Unresolvable("pip", [line]).wanted == {"low-lib": version}


@pytest.mark.parametrize(
    ("requirement", "note"),
    (
        ("low-lib==1.5", "note: low-lib 1.5 is younger than 4 days"),
        (
            "low-lib==1.7",
            "note: low-lib 1.7 is not upstream; 3 files of it are withheld, such as: low-lib 1.6",
        ),
        ("low-lib>1.5", "note: low-lib: 3 files of it are withheld, such as: low-lib 1.6 is younger than 4 days"),
    ),
)
def test_the_version_that_was_wanted_is_explained(
    fetch: Fetch, upstream: Mirrored, requirement: str, note: str
) -> None:
    """Where a rule hides it."""
    for version in ("1.4", "1.5", "1.6"):
        upstream.add("low-lib", build_wheel("low-lib", version), upload_time="2999-01-01T00:00:00Z")
    done = fetch(requirement, "--cooldown", "4d")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-2].startswith(note)


def test_a_conflict_is_explained(fetch: Fetch, upstream: Mirrored) -> None:
    """In the resolver's words, without addresses that nobody knows."""
    upstream.add("picky", build_wheel("picky", "1.0", requires=["low-lib>9"]))
    done = fetch("picky", "low-lib")
    assert (done.returncode, done.stdout) == (1, "")
    assert "low-lib" in done.stderr
    assert "127.0.0.1" not in done.stderr


# What goes wrong


def test_a_file_that_upstream_breaks_off(fetch: Fetch, packages: Path, upstream: Mirrored) -> None:
    """It is named; nothing of it is seen, and the same command again goes on."""
    (lock := packages.parent / "uv.lock").write_text(lock_with_uv(upstream.url, WINDOWS, LINUX))
    upstream.spoil(f"/files/win-lib/{WINDOWS.filename}", cut=100)
    done = fetch("-r", lock)
    assert (done.returncode, list_files(packages)) == (1, names(LINUX)), done
    assert f"error: {WINDOWS.filename}: " in done.stderr
    assert "1 failed" in done.stdout
    upstream.heal()
    assert fetch("-r", lock).returncode == 0
    assert list_files(packages) == names(WINDOWS, LINUX)


def test_ctrl_c(fetch: Fetch, packages: Path, upstream: Mirrored, environment: dict[str, str], tmp_path: Path) -> None:
    """Nothing half done is left anywhere, and the exit code says so."""
    fault = upstream.spoil(f"/files/low-lib/{LOW.filename}", stall=50, method="GET")
    (tmp_path / "pylock.toml").write_text(pylock(LOW, f'sha256 = "{LOW.sha256}"'))
    command = [sys.executable, "-m", "pypiserver_ng", "fetch", "-r", "pylock.toml", "--fallback-url", upstream.url]
    running = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert fault.reached.wait(30)
    wait_until(lambda: any((packages / ".pypiserver-ng" / "scratch").iterdir()), within=30)
    running.send_signal(signal.SIGINT)
    output, said = running.communicate(timeout=30)
    assert (running.returncode, output, b"Traceback" in said) == (130, b"", False), said
    state = packages / ".pypiserver-ng"
    assert list_files(packages) == set()
    assert not [*(state / "scratch").iterdir(), *(state / "cache" / "files").iterdir()]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="nothing here tells of a process's children")
def test_ctrl_c_while_it_resolves(
    packages: Path, upstream: Mirrored, environment: dict[str, str], tmp_path: Path
) -> None:
    """The resolver ends with it."""
    fault = upstream.spoil("/simple/low-lib/", hang=True)
    command = [sys.executable, "-m", "pypiserver_ng", "fetch", "low-lib", "--fallback-url", upstream.url]
    running = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert fault.reached.wait(30)
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
    running.send_signal(signal.SIGINT)
    output, said = running.communicate(timeout=30)
    assert (running.returncode, output, b"Traceback" in said) == (130, b"", False), said
    assert children
    assert not any(Path("/proc", child).exists() for child in children)
    assert list_files(packages) == set()


def test_a_deleted_name_takes_no_other_bytes(
    fetch: Fetch, packages: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    make_wheel(packages, "low-lib", "1.5", description="other")
    Program(tmp_path, environment).run("delete", "low-lib", "1.5")
    done = fetch("low-lib")
    assert (done.returncode, list_files(packages)) == (1, set()), done
    assert "was deleted here" in done.stderr


def test_an_upstream_that_fails(fetch: Fetch, packages: Path, upstream: Mirrored) -> None:
    """A resolver hears of no files only."""
    upstream.spoil("/simple/low-lib/", status=500)
    done = fetch("low-lib")
    assert (done.returncode, list_files(packages)) == (1, set())
    assert "answered with status 500" in done.stderr.splitlines()[-2]
    assert "note: no upstream has nope" in fetch("nope").stderr.splitlines()


def test_a_name_that_something_else_has(fetch: Fetch, packages: Path) -> None:
    """What no scan takes for a file is not replaced either."""
    (packages / LOW.filename).mkdir()
    done = fetch("low-lib")
    assert (done.returncode, (packages / LOW.filename).is_dir()) == (1, True), done
    assert "move them away" in done.stderr


def test_closed_projects_take_nothing(
    fetch: Fetch, packages: Path, tmp_path: Path, environment: dict[str, str], upstream: Mirrored
) -> None:
    """As with uploads."""
    Program(tmp_path, environment).run("status", "low-lib", "quarantined")
    (tmp_path / "pylock.toml").write_text(pylock(LOW, f'sha256 = "{LOW.sha256}"'))
    done = fetch("-r", "pylock.toml")
    assert (done.returncode, list_files(packages)) == (1, set()), done
    assert "low-lib is quarantined" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as somebody else")
def test_root_acts_as_the_owner(environment: dict[str, str], upstream: Mirrored) -> None:
    """Of a lock, since others may not be able to start this interpreter."""
    with tempfile.TemporaryDirectory() as home:
        packages = Path(home) / "packages"
        packages.mkdir()
        (Path(home) / "pylock.toml").write_text(pylock(LOW, f'sha256 = "{LOW.sha256}"'))
        for path in (Path(home), packages):
            os.chown(path, 65534, 65534)
        done = Program(Path(home), environment).run("fetch", "-r", "pylock.toml", "--fallback-url", upstream.url)
        assert done.returncode == 0, done
        assert {path.stat().st_uid for path in packages.rglob("*")} == {65534}


def test_the_report_of_pip() -> None:
    """Direct references of a dependency are not of this index."""
    from pypiserver_ng.index.resolving import read_report

    report: Any = {
        "install": [
            {"download_info": {"url": "http://127.0.0.1:1/x/packages/sub/demo-1.0.tar.gz"}},
            {"download_info": {"url": "https://u:secret@other.example/demo-2.0.tar.gz", "archive_info": {}}},
            {
                "download_info": {
                    "url": "http://127.0.0.1:1/x/packages/-/first-seen/demo-3.0.tar.gz",
                    "archive_info": {"hashes": {"sha256": "a" * 64, "md5": "b"}},
                }
            },
        ]
    }
    found = read_report(json.dumps(report).encode(), Index("http://127.0.0.1:1/x"))
    assert [(one.filename, one.hashes) for one in found.wanted] == [
        ("demo-1.0.tar.gz", {}),
        ("demo-3.0.tar.gz", {"sha256": "a" * 64}),
    ]
    assert found.left_out == ("https://other.example/demo-2.0.tar.gz: not of an index",)


def test_on_a_terminal(upstream: Mirrored, packages: Path, environment: dict[str, str], tmp_path: Path) -> None:
    """A bar of files and bytes, which goes; and no line for each file."""
    leader, follower = os.openpty()
    command = [sys.executable, "-m", "pypiserver_ng", "fetch", "low-lib", "--fallback-url", upstream.url]
    environment["TERM"] = "xterm"
    with os.fdopen(leader, "rb", buffering=0) as terminal:
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=follower, check=True, text=True
        )
        os.close(follower)
        shown = read_all(terminal)
    assert [line.partition(" ")[0] for line in done.stdout.splitlines()] == ["local", "1"]
    assert b"pip resolves" in shown
    assert b"1 of 1 file" in shown
    assert f"bringing 1 file, {len(LOW.content)} B\r\n".encode() in shown
    assert list_files(packages) == names(LOW)


def read_all(terminal: BinaryIO) -> bytes:
    """Until its other side is closed, which Linux says with an error."""
    shown = b""
    with suppress(OSError):
        while piece := terminal.read(4096):
            shown += piece
    return shown


def test_many_files(packages: Path, upstream: Mirrored, environment: dict[str, str], tmp_path: Path) -> None:
    """Several at a time, each whole."""
    wheels = [build_wheel("many", "1.0", build=f"{number}") for number in range(30)]
    upstream.add("many", *wheels)
    fault = upstream.spoil("/files/many/*", stall=10)
    (tmp_path / "uv.lock").write_text(lock_with_uv(upstream.url, *wheels))
    command = [sys.executable, "-m", "pypiserver_ng", "fetch", "-r", "uv.lock", "--fallback-url", upstream.url]
    running = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)
    wait_until(lambda: upstream.most_downloads == 6, within=30)
    fault.release()
    assert running.wait(30) == 0
    assert list_files(packages) == names(*wheels)
    assert upstream.most_downloads == 6

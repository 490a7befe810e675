"""`upstream check`: what it says of rich, poor and broken upstreams."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tools.distributions import build_sdist, build_wheel
from tests.tools.mirrored import Mirrored, running_mirrored
from tests.tools.program import Program


@pytest.fixture
def upstream() -> Iterator[Mirrored]:
    with running_mirrored() as index:
        index.add("pip", build_wheel("pip", "1.0"), build_sdist("pip", "1.0"))
        index.add("pip", build_wheel("pip", "2.0"), upload_time="2026-03-04T05:06:07Z")
        index.add("demo", build_wheel("demo", "1.0"))
        yield index


@pytest.fixture
def program(tmp_path: Path, environment: dict[str, str]) -> Program:
    return Program(tmp_path, environment)


def check(program: Program, *args: str) -> list[dict[str, Any]]:
    done = program.run("upstream", "check", "--json", *args)
    assert (done.returncode, done.stderr) == (0, ""), done
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


RICH = {"sha256": 1, "size": 1, "upload-time": 1, "core-metadata": 1, "yanked": 1}


def test_a_rich_one(program: Program, upstream: Mirrored) -> None:
    upstream.look.gzip = True
    [found] = check(program, upstream.url)
    assert found.pop("page-ms") > 0
    assert found.pop("file-ms") > 0
    assert found == {
        "name": "url-1",
        "host": upstream.root.removeprefix("http://"),
        "usable": True,
        "problem": None,
        "form": "JSON",
        "api-version": "1.1",
        "files": 3,
        "shares": RICH,
        "revalidates": True,
        "compression": "gzip",
        "ranges": True,
        "newest": "2026-03-04T05:06:07Z",
    }
    # Three times for the clock, once for its validators, and one byte of a file.
    assert upstream.count_pages("pip") == 4
    assert sum(upstream.sent[path] for path in upstream.paths if "/files/" in path) == 1


def test_a_poor_one(program: Program, upstream: Mirrored) -> None:
    """HTML has no place for most facts."""
    look = upstream.look
    look.as_json = look.etag = look.hashes = look.metadata = False
    upstream.ranges = False
    [found] = check(program, upstream.url, "--project", "demo")
    assert (found["form"], found["api-version"], found["files"]) == ("HTML", None, 1)
    assert found["shares"] == dict.fromkeys(RICH, 0)
    assert (found["revalidates"], found["compression"], found["ranges"]) == (False, None, False)
    assert found["newest"] is None


def test_shares_are_of_the_files(program: Program, upstream: Mirrored) -> None:
    upstream.add("demo", build_wheel("demo", "2.0"), upload_time=None)
    upstream.look.sizes = False
    [found] = check(program, upstream.url, "--project", "demo")
    assert found["shares"] == {**RICH, "size": 0, "upload-time": 0.5}


def test_a_table(program: Program, upstream: Mirrored) -> None:
    """Aligned, with one row for each; those that cannot be used are named with the reason, and the exit code is 1."""
    dead = "http://127.0.0.1:9/simple/"
    done = program.run("upstream", "check", upstream.url_for("u:secret"), dead)
    heading, row = done.stdout.splitlines()
    assert heading.split()[:5] == ["name", "host", "page", "file", "API"]
    assert row.split()[:2] == ["url-1", upstream.root.removeprefix("http://")]
    assert row.index("JSON 1.1") == heading.index("API")
    assert row.endswith("2026-03-04 05:06")
    assert (done.returncode, "secret" in done.stdout) == (1, False)
    assert (
        done.stderr
        == "pypiserver-ng: error: The upstream 'url-2' (127.0.0.1:9) cannot be reached: connection refused\n"
    )


def test_those_of_the_configuration(program: Program, upstream: Mirrored, tmp_path: Path) -> None:
    """By their names; flags and variables count as for `run`."""
    (tmp_path / "config.toml").write_text(
        f'[[upstream]]\nname = "one"\nurl = "{upstream.url}"\n[[upstream]]\nname = "two"\nurl = "{upstream.url}"\n'
    )
    assert [found["name"] for found in check(program, "--config", "config.toml")] == ["one", "two"]
    assert [found["name"] for found in check(program, "--fallback-url", upstream.url)] == ["upstream"]


@pytest.mark.parametrize(
    ("fault", "reason"),
    (
        ({"status": 500}, "answered with status 500"),
        ({"body": b'{"files": []}'}, "lists no files of pip"),
        ({"status": 404}, "does not have pip"),
        ({"cut": 10}, "ended its answer early"),
    ),
    ids=("fails", "empty", "unknown", "breaks off"),
)
def test_one_that_cannot_be_used(program: Program, upstream: Mirrored, fault: dict[str, Any], reason: str) -> None:
    upstream.spoil("/simple/pip/", **fault)
    done = program.run("upstream", "check", upstream.url, "--json")
    [found] = json.loads(done.stdout)
    assert (done.returncode, found["usable"]) == (1, False)
    assert reason in found["problem"]


@pytest.mark.parametrize(
    ("url", "shown"),
    (
        ("ftp://alice:secret@mirror.example/simple/", "ftp://mirror.example/simple/"),
        ("alice:se://cret@mirror.example", "mirror.example"),
        ("https://alice:s@e?cret@mirror.example/?token=secret", "https://mirror.example/"),
        ("https://mirror.example/#secret", "https://mirror.example/"),
    ),
)
def test_a_bad_url_is_named_without_its_secrets(program: Program, url: str, shown: str) -> None:
    line = program.refuse("upstream", "check", url)
    assert f"URL {shown!r} must be" in line
    assert "cret" not in line


def test_bad_usage(program: Program) -> None:
    assert "'mirror.example' must be an absolute" in program.refuse("upstream", "check", "mirror.example")
    assert "not a project name" in program.refuse("upstream", "check", "--project", "a b")

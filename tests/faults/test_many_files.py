"""A start with ten thousand files in the directory: pages answer long before everything was read."""

import os
import sqlite3
import time
from pathlib import Path

import pytest

from tests.faults.answers import ask, list_files
from tests.tools.distributions import Distribution, build_wheel
from tests.tools.server import OPEN, Serve

PROJECTS, RELEASES = 1000, 10


@pytest.fixture
def crowded(packages: Path) -> Path:
    """The same bytes under all names but those of one project: what is inside is not what takes time here."""
    content = build_wheel("filler", "1.0").content
    for project in range(PROJECTS - 1):
        for release in range(RELEASES):
            (packages / f"p{project}-1.{release}-py3-none-any.whl").write_bytes(content)
    for release in range(RELEASES):
        build_wheel("zlast", f"1.{release}", extra_files={"zlast/more": b"x" * 100_000}).write(packages)
    return packages


def count_unread(packages: Path) -> int:
    with sqlite3.connect(packages / ".pypiserver-ng" / "catalog.sqlite", timeout=30) as connection:
        (count,) = connection.execute("SELECT count(*) FROM files WHERE sha256 IS NULL").fetchone()
    connection.close()
    return int(count)


@pytest.mark.parametrize("workers", ("1", "4") if os.environ.get("TEST_LONG") else ("1",))
def test_start_with_many_files(crowded: Path, serve: Serve, workers: str) -> None:
    """The ready line counts them all; the project that is read last is answered while most are still unread."""
    began = time.monotonic()
    server = serve(*OPEN, "--disable-fallback", "--workers", workers)
    print(f"ready with {PROJECTS * RELEASES} files after {time.monotonic() - began:.2f} s, {workers} workers")
    assert f"ready: {PROJECTS} projects, {PROJECTS * RELEASES} files" in server.log
    listed = list_files(server.url, "zlast")
    unread = count_unread(crowded)
    assert {file.sha256 for file in listed} == {
        Distribution(path.name, path.read_bytes()).sha256 for path in crowded.glob("zlast-*")
    }
    assert unread > 0
    assert len(ask(server.url, "/simple/").json()["projects"]) == PROJECTS
    server.stop()
    began = time.monotonic()
    server = serve(*OPEN, "--disable-fallback", "--workers", workers)
    print(f"ready again after {time.monotonic() - began:.2f} s")
    assert listed == list_files(server.url, "zlast")

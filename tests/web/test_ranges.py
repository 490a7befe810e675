"""Parts of a file: byte ranges and their conditions, as installers and resumed downloads ask for them."""

import os
import random
from collections.abc import Iterator
from email.utils import formatdate

import pytest
from starlette.testclient import TestClient

from tests.tools.distributions import build_sdist
from tests.web.conftest import make_client, make_config
from tests.web.forms import header

MTIME = 1_700_000_000
#: Larger than what the server reads at once, so that parts cross from one block to the next.
SDIST = build_sdist("big", "1.0", extra_files={"data.bin": random.Random(0).randbytes(700_000)})
SIZE = len(SDIST.content)
FILE = f"/packages/{SDIST.filename}"
EMPTY = "/packages/empty-1.0.zip"
ETAG = f'"{SDIST.sha256}"'
MODIFIED = formatdate(MTIME, usegmt=True)

SATISFIABLE = [
    ("bytes=0-0", 0, 1),
    ("bytes=0-9", 0, 10),
    ("bytes=100-299", 100, 300),
    ("bytes=262143-262145", 262_143, 262_146),
    (f"bytes=0-{SIZE - 1}", 0, SIZE),
    (f"bytes={SIZE - 1}-", SIZE - 1, SIZE),
    ("bytes=0-", 0, SIZE),
    ("bytes=5-", 5, SIZE),
    (f"bytes=5-{SIZE + 1000}", 5, SIZE),
    ("bytes=5-999999999999999999", 5, SIZE),
    ("bytes=-1", SIZE - 1, SIZE),
    ("bytes=-10000", SIZE - 10_000, SIZE),
    ("bytes=-999999999", 0, SIZE),
    ("BYTES=1-2", 1, 3),
    ("bytes = 1 - 2", 1, 3),
]
UNSATISFIABLE = [
    f"bytes={SIZE}-",
    f"bytes={SIZE}-{SIZE + 5}",
    "bytes=999999999999-",
    "bytes=99999999999999999999999999-",
    "bytes=-0",
]
IGNORED = [
    "",
    "bytes",
    "bytes=",
    "bytes=-",
    "bytes=abc-def",
    "bytes=9-1",
    "bytes=1-2,5-6",
    "bytes=0-0,-1",
    "bytes=" + ",".join(f"{start}-{start}" for start in range(2000)),
    "items=0-5",
    "bytes=0x10-0x20",
    "bytes=--5",
    "bytes=+1-2",
    "bytes=1.5-2",
    "bytes=0-5; q=1",
    "bytes: 0-5",
    "bytes=\xb2-\xb3",
]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    packages = tmp_path_factory.mktemp("packages")
    path = SDIST.write(packages)
    os.utime(path, (MTIME, MTIME))
    (packages / "empty-1.0.zip").touch()
    with make_client(make_config(packages)) as client:
        yield client


@pytest.mark.parametrize(("asked", "first", "end"), SATISFIABLE)
def test_single_range(client: TestClient, asked: str, first: int, end: int) -> None:
    """Exactly the bytes that were asked for, with the place they have in the file."""
    answer = client.get(FILE, headers={"range": asked})
    assert answer.status_code == 206
    assert f"bytes {first}-{end - 1}/{SIZE}" == answer.headers["content-range"]
    assert str(end - first) == answer.headers["content-length"]
    assert SDIST.content[first:end] == answer.content
    assert (answer.headers["etag"], answer.headers["last-modified"]) == (ETAG, MODIFIED)


@pytest.mark.parametrize("asked", UNSATISFIABLE)
def test_range_outside_the_file(client: TestClient, asked: str) -> None:
    """416 says how long the file is."""
    answer = client.get(FILE, headers={"range": asked})
    assert (416, f"bytes */{SIZE}", b"") == (answer.status_code, answer.headers["content-range"], answer.content)


@pytest.mark.parametrize("asked", IGNORED)
def test_range_that_is_ignored(client: TestClient, asked: str) -> None:
    """Nonsense, several ranges and units that nobody knows get the whole file."""
    answer = client.get(FILE, headers=header("range", asked))
    assert (answer.status_code, len(answer.content)) == (200, SIZE)
    assert "content-range" not in answer.headers


@pytest.mark.parametrize("asked", ("bytes=0-9", f"bytes={SIZE}-", "bytes=-5"))
def test_head_has_no_ranges(client: TestClient, asked: str) -> None:
    """Range is defined for GET only: HEAD tells of the whole file."""
    answer = client.head(FILE, headers={"range": asked})
    assert (200, str(SIZE)) == (answer.status_code, answer.headers["content-length"])
    assert answer.headers["accept-ranges"] == "bytes"


@pytest.mark.parametrize("condition", (ETAG, MODIFIED, f" {ETAG} "))
def test_resume_of_the_same_file(client: TestClient, condition: str) -> None:
    """A download goes on where the client still has the bytes of this file."""
    answer = client.get(FILE, headers={"range": "bytes=1000-", "if-range": condition})
    assert (206, SDIST.content[1000:]) == (answer.status_code, answer.content)


@pytest.mark.parametrize(
    "condition",
    (
        '"other"',
        f"W/{ETAG}",
        SDIST.sha256,
        formatdate(MTIME + 1, usegmt=True),
        formatdate(MTIME - 1, usegmt=True),
        "",
        "nonsense",
        "*",
        "ÿ",
    ),
)
@pytest.mark.parametrize("asked", ("bytes=1000-", f"bytes={SIZE + 1}-"))
def test_resume_of_another_file(client: TestClient, condition: str, asked: str) -> None:
    """Where the file may be another one, it comes from its beginning."""
    answer = client.get(FILE, headers=header("range", asked) | header("if-range", condition))
    assert (answer.status_code, len(answer.content)) == (200, SIZE)


def test_known_file_is_not_sent_in_parts(client: TestClient) -> None:
    """If-None-Match comes before Range."""
    answer = client.get(FILE, headers={"range": "bytes=0-9", "if-none-match": ETAG})
    assert (answer.status_code, answer.content) == (304, b"")


@pytest.mark.parametrize(
    ("asked", "status"), ((None, 200), ("bytes=0-", 416), ("bytes=-5", 416), ("bytes=0-0", 416), ("bytes=x", 200))
)
def test_empty_file(client: TestClient, asked: str | None, status: int) -> None:
    """A file without bytes has no part that could be sent."""
    answer = client.get(EMPTY, headers={"range": asked} if asked else {})
    assert (status, b"", "0") == (answer.status_code, answer.content, answer.headers["content-length"])

"""`--accel-redirect`: a trusted proxy is told where a file lies, everybody else gets its bytes."""

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.mirror.asking import url_of
from tests.tools.distributions import build_sdist, build_wheel, make_sdist
from tests.tools.mirrored import running_mirrored
from tests.tools.server import OPEN, Serve, wait_until
from tests.web.forms import Answer, Wire

WHEEL = build_wheel("demo", "1.0")
FILE = f"/packages/{WHEEL.filename}"
ACCEL = ("--trusted-proxy", "127.0.0.1", "--accel-redirect", "/-files/")
PROXIED = "x-forwarded-for: 192.0.2.7"
#: Names that mean something else somewhere: in a URL, a header, or nginx's language.
ODD = "sub+dir~1/100% $uri ü%2e%2e?x#y"


@pytest.fixture
def stocked(packages: Path) -> Path:
    WHEEL.write(packages)
    WHEEL.write(packages / ODD)
    return packages


@pytest.fixture
def wire(serve: Serve, stocked: Path) -> Wire:
    return Wire(serve(*OPEN, "--disable-fallback", *ACCEL).url)


def location(path: Path) -> str:
    return f"/-files{quote(os.path.realpath(path))}"


@pytest.mark.parametrize("method", ("GET", "HEAD"))
@pytest.mark.parametrize(
    "header", ("x: y", "range: bytes=0-9", f'if-none-match: "{WHEEL.sha256}"', "if-match: *", 'if-match: "other"')
)
def test_the_proxy_is_told(wire: Wire, stocked: Path, method: str, header: str) -> None:
    """Where the file is and what it is; ranges and conditions are the proxy's, by its own validators."""
    answer = wire.get(FILE, PROXIED, header, method=method)
    assert (answer.status, answer.body) == (200, b"")
    headers = {name: value for name, value in answer.headers.items() if name not in {"date", "connection"}}
    assert headers == {
        "x-accel-redirect": location(stocked / WHEEL.filename),
        "content-type": "application/octet-stream",
        "content-disposition": "attachment",
        "cache-control": "public, max-age=31536000, immutable",
        "content-length": "0",
    }


def test_odd_names(wire: Wire, stocked: Path) -> None:
    """Every octet that means something is encoded, once."""
    answer = wire.get(f"/packages/{quote(ODD)}/{WHEEL.filename}", PROXIED)
    expected = location(stocked / ODD / WHEEL.filename)
    assert answer.headers["x-accel-redirect"] == expected
    assert set(expected) & set("?#$ ") == set()
    assert expected.isascii()


def is_whole(answer: Answer) -> bool:
    return (200, WHEEL.content) == (answer.status, answer.body) and "x-accel-redirect" not in answer.headers


HINTS = ("x-sendfile-type: X-Accel-Redirect", "x-accel-mapping: /=/-files/", "x-accel-redirect: /etc/passwd")


def test_programs_on_the_machine_of_the_proxy(wire: Wire) -> None:
    """They have its address, but ask for nobody else: they get the bytes."""
    assert is_whole(wire.get(FILE))
    assert is_whole(wire.get(FILE, "x-forwarded-for: unknown", *HINTS))


@pytest.mark.parametrize(
    "options", (("--trusted-proxy", "192.0.2.1", "--accel-redirect", "/-files"), ("--trusted-proxy", "127.0.0.1"))
)
def test_others_are_told_nothing(serve: Serve, stocked: Path, options: tuple[str, ...]) -> None:
    """Whatever they say."""
    wire = Wire(serve(*OPEN, "--disable-fallback", *options).url)
    assert is_whole(wire.get(FILE, PROXIED, *HINTS))


def test_links(serve: Serve, packages: Path, tmp_path: Path) -> None:
    """The proxy is told real paths, and none outside of the directories that are served."""
    inside = make_sdist(packages / "sub", "demo", "1.0")
    outside = make_sdist(tmp_path / "outside", "demo", "2.0")
    (packages / "demo-1.1.tar.gz").symlink_to(inside)
    (packages / outside.name).symlink_to(outside)
    (tmp_path / "linked").symlink_to(packages)
    wire = Wire(serve(*OPEN, "--disable-fallback", *ACCEL, packages=tmp_path / "linked").url)
    assert wire.get("/packages/demo-1.1.tar.gz", PROXIED).headers["x-accel-redirect"] == location(inside)
    answer = wire.get(f"/packages/{outside.name}", PROXIED)
    assert answer.body == outside.read_bytes()
    assert "x-accel-redirect" not in answer.headers


def test_a_directory_whose_name_only_begins_alike(serve: Serve, packages: Path) -> None:
    """It is none of those that are served."""
    private = make_sdist(packages.with_name(f"{packages.name}-private"), "demo", "1.0")
    (packages / private.name).symlink_to(private)
    answer = Wire(serve(*OPEN, "--disable-fallback", *ACCEL).url).get(f"/packages/{private.name}", PROXIED)
    assert answer.body == private.read_bytes()
    assert "x-accel-redirect" not in answer.headers


def test_refusals_are_ours(serve: Serve, stocked: Path, passwords: Path) -> None:
    """Who may not have it, and what is not there, is said as without a proxy."""
    wire = Wire(serve("-P", str(passwords), "-a", "download", "--disable-fallback", *ACCEL).url)
    assert wire.get(FILE, PROXIED).status == 401
    right = "authorization: Basic YWxpY2U6d29uZGVy"
    answer = wire.get(FILE, PROXIED, right)
    assert answer.headers["cache-control"].startswith("private")
    assert "x-accel-redirect" in answer.headers
    assert wire.get("/packages/absent-1.0.tar.gz", PROXIED, right).status == 404
    (stocked / WHEEL.filename).unlink()
    gone = wire.get(FILE, PROXIED, right)
    assert gone.status == 404
    assert "x-accel-redirect" not in gone.headers


def test_metadata_are_sent_from_here(wire: Wire) -> None:
    """They are no files that a proxy could open."""
    answer = wire.get(f"{FILE}.metadata", PROXIED)
    assert b"Name: demo" in answer.body
    assert "x-accel-redirect" not in answer.headers


@pytest.fixture
def upstream_url() -> Iterator[str]:
    with running_mirrored() as upstream:
        upstream.add("demo", BIG)
        yield upstream.url


BIG = build_sdist("demo", "1.0", extra_files={"data.bin": os.urandom(300_000)})


def test_cache(serve: Serve, packages: Path, upstream_url: str) -> None:
    """What is being fetched comes from here, and is the proxy's as soon as it is whole."""
    server = serve(*OPEN, "--fallback-mode", "cache", "--fallback-url", upstream_url, *ACCEL)
    wire = Wire(server.url)
    target = url_of(BIG)
    first = wire.get(target, PROXIED)
    assert first.body == BIG.content
    assert "x-accel-redirect" not in first.headers
    kept = packages / ".pypiserver-ng/cache/files" / BIG.sha256[:2] / BIG.sha256 / BIG.filename
    wait_until(kept.exists)
    assert wire.get(target, PROXIED).headers["x-accel-redirect"] == location(kept)

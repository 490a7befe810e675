"""nginx in front, configured as docs/operating.md shows it: it sends the files, and the server says which."""

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from tests.tools.distributions import build_sdist, build_wheel, make_sdist
from tests.tools.mirrored import running_mirrored
from tests.tools.server import OPEN, Serve, Server, wait_until
from tests.web.forms import Answer, Wire

ROOT = Path(__file__).parents[2]
PROGRAM = shutil.which("nginx")
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="nginx is not installed")

WHEEL = build_wheel("demo", "1.0")
FILE = f"/packages/{WHEEL.filename}"
BIG = build_sdist("big", "1.0", extra_files={"data.bin": os.urandom(3_000_000)})
ODD = "sub+dir~1/100% $uri ü%2e%2e?x#y;z&a=b"
ACCEL = ("--trusted-proxy", "127.0.0.1", "--accel-redirect", "/-files")
CREDENTIALS = "authorization: Basic YWxpY2U6d29uZGVy"

#: In place of the system's own configuration.
FRAME = """
daemon off; pid nginx.pid; error_log stderr; worker_processes 1; %s
events { worker_connections 64; }
http {
    access_log off;
    client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5;
    %s
}
"""

Front = Callable[[Server], Wire]


def configure(server: Server, port: int, directory: Path) -> str:
    """The blocks of the docs, with the addresses and directories of this test in place of theirs."""
    text = (ROOT / "docs" / "operating.md").read_text()
    whole, _, files = re.findall(r"```nginx\n(.*?)```", text, re.DOTALL)[:3]
    assert "internal;" in files
    config = whole.rstrip().removesuffix("}") + files + "}\n"
    real = os.path.realpath(directory)
    for old, new in (
        ("listen 443 ssl", f"listen 127.0.0.1:{port}"),
        ("127.0.0.1:8080", urlsplit(server.url).netloc),
        ("/srv/packages", real),
    ):
        assert old in config
        config = config.replace(old, new)
    # Its workers read what the test wrote.
    return FRAME % ("user root;" if os.geteuid() == 0 else "", config)


@pytest.fixture
def front(tmp_path: Path, packages: Path) -> Iterator[Front]:
    """Starts nginx before a server."""
    with ExitStack() as running:

        def start(server: Server) -> Wire:
            assert PROGRAM is not None
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = free.getsockname()[1]
            home = tmp_path / "nginx"
            home.mkdir()
            (home / "nginx.conf").write_text(configure(server, port, packages))
            log = running.enter_context((home / "log").open("wb"))
            process = subprocess.Popen([PROGRAM, "-p", home, "-c", "nginx.conf"], stderr=log, stdout=log)
            running.callback(process.wait, 10)
            running.callback(process.terminate)

            def answers() -> bool:
                assert process.poll() is None, (home / "log").read_text()
                with socket.socket() as probe:
                    return probe.connect_ex(("127.0.0.1", port)) == 0

            wait_until(answers, 10)
            return Wire(f"http://127.0.0.1:{port}")

        yield start


@pytest.fixture
def wire(serve: Serve, packages: Path, front: Front) -> Wire:
    WHEEL.write(packages)
    BIG.write(packages)
    WHEEL.write(packages / ODD)
    return front(serve(*OPEN, "--disable-fallback", *ACCEL))


def assert_is_sent_by_nginx(answer: Answer) -> None:
    """As an attachment that no browser shows; nothing tells where it lies."""
    assert re.fullmatch(r'"[0-9a-f]+-[0-9a-f]+"', answer.headers["etag"])
    assert answer.headers["content-type"] in {"application/octet-stream", "application/gzip"}
    assert answer.headers["content-disposition"] == "attachment"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert "x-accel-redirect" not in answer.headers


@pytest.mark.parametrize("target", (FILE, f"/packages/{quote(ODD)}/{WHEEL.filename}"))
def test_whole_file(wire: Wire, target: str) -> None:
    """Whatever is in its path."""
    answer = wire.get(target)
    assert (answer.status, answer.body) == (200, WHEEL.content)
    assert_is_sent_by_nginx(answer)
    head = wire.get(target, method="HEAD")
    assert (head.status, head.headers["content-length"]) == (200, str(len(WHEEL.content)))
    assert_is_sent_by_nginx(head)


def test_parts(wire: Wire) -> None:
    """Ranges and conditions are nginx's, by its own ETag."""
    target = f"/packages/{BIG.filename}"
    whole = wire.get(target)
    assert whole.body == BIG.content
    etag = whole.headers["etag"]
    part = wire.get(target, "range: bytes=1000000-1999999", f"if-range: {etag}")
    assert (part.status, part.body) == (206, BIG.content[1_000_000:2_000_000])
    assert wire.get(target, "range: bytes=-5").body == BIG.content[-5:]
    assert wire.get(target, "range: bytes=0-0", 'if-range: "other"').status == 200
    assert wire.get(target, "range: bytes=99999999-").status == 416
    assert wire.get(target, f"if-none-match: {etag}", method="HEAD").status == 304
    assert wire.get(target, 'if-match: "other"').status == 412


@pytest.mark.parametrize(
    "target",
    (
        "/-files/etc/passwd",
        "/-files{packages}/" + WHEEL.filename,
        "/packages/../-files{packages}/" + WHEEL.filename,
        "/packages/%2e%2e/%2e%2e/etc/passwd",
        "/packages/.pypiserver-ng/catalog.sqlite",
        "/packages/absent-1.0.tar.gz",
    ),
)
def test_nothing_else_can_be_had(wire: Wire, packages: Path, target: str) -> None:
    """Neither by the location's own name nor through a path of the index."""
    answer = wire.get(target.replace("{packages}", str(packages)), "x-accel-redirect: /-files/etc/passwd")
    assert answer.status in {400, 404}
    assert WHEEL.content not in answer.body
    assert b"root:" not in answer.body


def test_files_that_went(wire: Wire, packages: Path) -> None:
    """They are gone at once."""
    assert wire.get(FILE).status == 200
    (packages / WHEEL.filename).unlink()
    assert wire.get(FILE).status == 404


def test_directory_that_nginx_does_not_know(serve: Serve, front: Front, packages: Path, tmp_path: Path) -> None:
    """A location that was forgotten is a 404, not a page of somebody else."""
    path = make_sdist(tmp_path / "more", "demo", "1.0")
    wire = front(serve(*OPEN, *ACCEL, str(path.parent)))
    answer = wire.get(f"/packages/{path.name}")
    assert (answer.status, b"nginx" in answer.body) == (404, True)


def test_linked_file(serve: Serve, front: Front, packages: Path, tmp_path: Path) -> None:
    """One from elsewhere comes from the server."""
    path = make_sdist(tmp_path / "outside", "demo", "1.0")
    (packages / path.name).symlink_to(path)
    answer = front(serve(*OPEN, "--disable-fallback", *ACCEL)).get(f"/packages/{path.name}")
    assert answer.body == path.read_bytes()
    assert len(answer.headers["etag"]) == 66


def test_credentials(serve: Serve, front: Front, packages: Path, passwords: Path) -> None:
    """They are asked for before nginx is told anything."""
    WHEEL.write(packages)
    wire = front(serve("-P", str(passwords), "-a", "download", "--disable-fallback", *ACCEL))
    refused = wire.get(FILE)
    assert (refused.status, refused.headers["www-authenticate"]) == (401, 'Basic realm="pypi"')
    assert wire.get(FILE, CREDENTIALS).body == WHEEL.content


def test_cache(serve: Serve, front: Front, packages: Path) -> None:
    """The first client gets the file while it comes, the next one from the disk."""
    with running_mirrored() as upstream:
        upstream.add("big", BIG)
        wire = front(serve(*OPEN, "--fallback-mode", "cache", "--fallback-url", upstream.url, *ACCEL))
        target = f"/packages/-/{BIG.sha256}/{BIG.filename}"
        first = wire.get(target)
        assert (first.body, first.headers["etag"]) == (BIG.content, f'"{BIG.sha256}"')
        kept = packages / ".pypiserver-ng/cache/files" / BIG.sha256[:2] / BIG.sha256 / BIG.filename
        wait_until(kept.exists)
        again = wire.get(target)
        assert again.body == BIG.content
        assert_is_sent_by_nginx(again)

"""The server's own TLS: who gets an answer, what a bad pair of files does, and how new files take effect."""

import json
import os
import socket
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPSConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography.hazmat.primitives import serialization

from pypiserver_ng.server import Certificate
from tests.test_accepting import list_workers
from tests.tools.certificates import make_certificate
from tests.tools.clients import Client, installed_version
from tests.tools.distributions import build_wheel, make_wheel
from tests.tools.metrics import read
from tests.tools.program import Program
from tests.tools.server import OPEN, Serve, Server, wait_until

#: What the program promises for files that change by hand.
SOON = 2.0

#: Answers that the application was not asked for, and the number of the last change.
FROM_MEMORY = "pypiserver_ng_http_answers_from_memory_total"
SERIAL = "pypiserver_ng_catalog_serial"


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return make_pair(tmp_path / "tls")


def make_pair(directory: Path) -> tuple[Path, Path]:
    directory.mkdir()
    return make_certificate(directory)


def flags(pair: tuple[Path, Path]) -> tuple[str, ...]:
    return "--certfile", str(pair[0]), "--keyfile", str(pair[1])


@pytest.fixture
def server(serve: Serve, pair: tuple[Path, Path]) -> Server:
    return serve(*OPEN, "--disable-fallback", *flags(pair))


def connect(server: Server, certificate: Path) -> HTTPSConnection:
    """A client that trusts this certificate."""
    context = ssl.create_default_context(cafile=certificate)
    return HTTPSConnection(urlsplit(server.url).netloc, timeout=30, context=context)


def ask(connection: HTTPSConnection, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


def read_metrics(connection: HTTPSConnection) -> dict[str, float]:
    return read(ask(connection, "/-/metrics")[2].decode())


def shown(server: Server) -> str:
    """The certificate that a new connection gets."""
    parts = urlsplit(server.url)
    return ssl.get_server_certificate((parts.hostname or "", parts.port or 0))


@pytest.mark.parametrize("workers", ("1", "2"))
def test_pages_and_files(serve: Serve, pair: tuple[Path, Path], packages: Path, workers: str) -> None:
    """The ready line names https, absolute URLs are https, and browsers shall come back by it."""
    large = build_wheel("demo", "1.0", extra_files={"demo/data.bin": os.urandom(3_000_000)})
    large.write(packages)
    server = serve(*OPEN, "--disable-fallback", "--workers", workers, *flags(pair))
    assert server.url.startswith("https://")
    connection = connect(server, pair[0])
    status, headers, body = ask(connection, "/pypi/demo/json")
    assert (status, headers["strict-transport-security"]) == (200, "max-age=31536000")
    url = json.loads(body)["urls"][0]["url"]
    assert url == f"{server.url}/packages/{large.filename}"
    for _ in range(3):
        assert ask(connection, f"/packages/{large.filename}")[2] == large.content
    connection.close()


def test_pages_from_memory(server: Server, pair: tuple[Path, Path], packages: Path) -> None:
    """Long ones, too, which lie in files that the system would send as they are."""
    for number in range(400):
        make_wheel(packages, "demo", f"1.{number}")
    connection = connect(server, pair[0])

    def get_page() -> tuple[int, dict[str, str], bytes]:
        return ask(connection, "/simple/demo/", accept="application/vnd.pypi.simple.v1+json")

    answers: list[tuple[int, dict[str, str], bytes]] = []
    from_memory = 0.0

    def get_pages_at_rest() -> bool:
        """Whether nothing was found or read meanwhile, which makes pages anew."""
        nonlocal answers, from_memory
        before = read_metrics(connection)
        answers = [get_page() for _ in range(5)]
        after = read_metrics(connection)
        from_memory = after[FROM_MEMORY] - before[FROM_MEMORY]
        return after[SERIAL] == before[SERIAL] and answers[0][2].count(b'"filename"') == 400

    wait_until(get_pages_at_rest, within=20)
    assert len(answers[0][2]) > 64 * 1024
    assert {body for _, _, body in answers} == {answers[0][2]}
    assert {headers["strict-transport-security"] for _, headers, _ in answers} == {"max-age=31536000"}
    assert from_memory >= 4
    connection.close()


def test_without_tls_there_is_no_answer(server: Server, pair: tuple[Path, Path]) -> None:
    """Nor for a client that leaves in the middle, and the next one is answered; the log stays quiet."""
    parts = urlsplit(server.url)
    for sent in (b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"\x16\x03\x01", b""):
        with socket.create_connection((parts.hostname, parts.port or 0), timeout=30) as plain:
            plain.sendall(sent)
            plain.shutdown(socket.SHUT_WR)
            received = plain.recv(1000)
            assert b"HTTP" not in received
    distrusting = ssl.create_default_context()
    with (
        socket.create_connection((parts.hostname, parts.port or 0)) as plain,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        distrusting.wrap_socket(plain, server_hostname=parts.hostname)
    connection = connect(server, pair[0])
    assert ask(connection, "/health")[2] == b"Ok"
    connection.close()
    assert "Traceback" not in server.log
    assert "ERROR" not in server.log


def test_idle_clients_do_not_hold_up_the_end(server: Server, pair: tuple[Path, Path]) -> None:
    """Neither those in the middle of a handshake nor those that never take their leave."""
    parts = urlsplit(server.url)
    with socket.create_connection((parts.hostname, parts.port or 0)):
        connection = connect(server, pair[0])
        assert ask(connection, "/health")[0] == 200
        server.process.terminate()
        assert server.process.wait(4) == 0
        connection.close()


def test_a_modern_context(pair: tuple[Path, Path]) -> None:
    """TLS 1.2 and newer, and no renegotiation."""
    context = Certificate(*pair).context
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION


@pytest.mark.parametrize("workers", ("1", "2"))
def test_new_files_take_effect(serve: Serve, pair: tuple[Path, Path], tmp_path: Path, workers: str) -> None:
    """Together only, in every worker, and for new connections: open ones live on."""
    server = serve(*OPEN, "--disable-fallback", "--workers", workers, *flags(pair))
    first, second = pair[0].read_text(), make_pair(tmp_path / "second")
    opened = connect(server, pair[0])
    assert ask(opened, "/health")[0] == 200
    pair[1].write_bytes(second[1].read_bytes())
    server.wait_for_log("WARNING.* is not that of the certificate .* the last good certificate stays in force", SOON)
    assert {shown(server) for _ in range(6)} == {first}
    pair[0].write_bytes(second[0].read_bytes())

    def show_all() -> set[str]:
        with ThreadPoolExecutor(4) as threads:
            return set(threads.map(lambda _: shown(server), range(12)))

    wait_until(lambda: show_all() == {second[0].read_text()}, within=SOON)
    assert ask(opened, "/health")[0] == 200
    opened.close()
    processes = list_workers(server) if workers != "1" else [server.process.pid]
    assert server.log.count("WARNING pypiserver_ng.server.certificate") <= len(processes)


def test_a_fault_is_said_once(pair: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And again when it is another one, or comes back."""
    certificate = Certificate(*pair)
    good, key = certificate.context, pair[1].read_bytes()
    for content in (b"junk", b"other junk", b""):
        pair[1].write_bytes(content)
        certificate.refresh()
        certificate.refresh()
    assert len(caplog.messages) == 1
    pair[1].unlink()
    certificate.refresh()
    certificate.refresh()
    assert len(caplog.messages) == 2
    assert certificate.context is good
    pair[1].write_bytes(key)
    certificate.refresh()
    assert certificate.context is not good
    pair[1].write_bytes(b"junk")
    certificate.refresh()
    assert len(caplog.messages) == 3


def test_what_is_being_written_is_not_believed(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """A pair that is written meanwhile, the key first and in two halves, is taken as a whole."""
    second = make_pair(tmp_path / "second")
    steps: list[Callable[[], object]] = []
    certificate = Certificate(*pair, pause=lambda _seconds: steps.pop()() if steps else None)
    first = certificate.context
    steps[:] = [
        lambda: pair[0].write_bytes(second[0].read_bytes()),
        lambda: pair[1].write_bytes(second[1].read_bytes()),
        lambda: pair[1].write_bytes(second[1].read_bytes()[:50]),
    ]
    pair[1].write_bytes(b"")
    certificate.refresh()
    assert not steps
    assert certificate.context is not first


def encrypt(path: Path) -> bytes:
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    how = serialization.BestAvailableEncryption(b"secret")
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)


def replace_by_directory(pair: tuple[Path, Path]) -> None:
    pair[0].unlink()
    pair[0].mkdir()


BAD: dict[str, tuple[Callable[[tuple[Path, Path]], object], str]] = {
    "no certificate": (lambda pair: pair[0].unlink(), "cannot read the certificate .*No such file.* see --certfile"),
    "no key": (lambda pair: pair[1].unlink(), "cannot read the key .*No such file.* see --keyfile"),
    "not of the pair": (
        lambda pair: pair[1].write_bytes(make_pair(pair[0].parent / "other")[1].read_bytes()),
        "is not that of the certificate",
    ),
    "empty certificate": (lambda pair: pair[0].write_bytes(b""), "is no certificate in PEM"),
    "half a certificate": (lambda pair: pair[0].write_bytes(pair[0].read_bytes()[:300]), "is no certificate in PEM"),
    "binary": (
        lambda pair: pair[0].write_bytes(ssl.PEM_cert_to_DER_cert(pair[0].read_text())),
        "is no certificate in PEM",
    ),
    "half a key": (lambda pair: pair[1].write_bytes(pair[1].read_bytes()[:100]), "is no private key in PEM"),
    "swapped": (lambda pair: pair[0].write_bytes(pair[1].read_bytes()), "is no certificate in PEM"),
    "encrypted": (lambda pair: pair[1].write_bytes(encrypt(pair[1])), "the key is encrypted"),
    "directory": (replace_by_directory, "it is not a regular file"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_pair(
    kind: str, pair: tuple[Path, Path], packages: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    """One line and exit code 2 at the start, and by `check-config`; nothing of the key is in it."""
    spoil, says = BAD[kind]
    spoil(pair)
    program = Program(tmp_path, environment)
    for command in ("check-config", "run"):
        line = program.refuse(command, packages, *OPEN, "--port", "0", *flags(pair))
        assert says.split(".*")[-1] in line
        assert "PRIVATE" not in line


def test_a_good_pair_is_valid(
    pair: tuple[Path, Path], packages: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    done = Program(tmp_path, environment).run("check-config", packages, *OPEN, *flags(pair))
    assert (done.returncode, done.stdout) == (0, "the configuration is valid\n"), done


@pytest.mark.clients
def test_real_clients(
    client: Callable[[str], Client], server: Server, pair: tuple[Path, Path], packages: Path, tmp_path: Path
) -> None:
    """Uploads with twine, installations with pip and uv: each has its own way to name a certificate."""
    wheel = make_wheel(tmp_path / "dist", "demo", "1.0")
    account = ("--username", "any", "--password", "any")
    client("twine").run("upload", "--repository-url", f"{server.url}/", "--cert", pair[0], *account, wheel)
    assert (packages / wheel.name).read_bytes() == wheel.read_bytes()
    for name in ("pip", "pip-html"):
        site = tmp_path / name
        client(name).run("install", "--cert", pair[0], "--index-url", server.simple, "--target", site, "demo")
        assert installed_version(site, "demo") == "1.0"
    uv = ("pip", "install", "--default-index", server.simple, "--target", tmp_path / "uv", "demo")
    client("uv").run(*uv, env={"SSL_CERT_FILE": str(pair[0])})
    assert installed_version(tmp_path / "uv", "demo") == "1.0"
    assert "certificate" in client("uv").run(*uv, "--reinstall", "--no-cache", ok=False)

"""No secret of anybody is in a log, an event or a file of the state: whatever way it came in."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.tools.distributions import build_wheel
from tests.tools.fake_upstream import FakeUpstream
from tests.tools.program import Program
from tests.tools.server import Serve, Server
from tests.tools.uploads import upload_fields

RIGHT, WRONG = "wonder", "wr0ng-passw0rd"
UPSTREAM = "upstr3am-s3cret"
JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJyZXBvOmFjbWUifQ.c2lnbmF0dXJlLW9mLWl0"
SENT_URL = "https://me:s3nt-in-a-url@mirror.example/simple/"
PUBLIC_TOKEN = "pypi-AgEIcHlwaS5vcmcCJDU2Nzg5YWJjZGVm"
WHEEL = build_wheel("demo", "1.0")
PATHS = (
    "/",
    "/simple/",
    "/simple/demo/",
    "/simple/up/",
    "/simple/absent/",
    f"/packages/{WHEEL.filename}",
    f"/packages/{WHEEL.filename}.metadata",
    "/packages/absent-1.0.zip",
    "/pypi/demo/json",
    "/pypi/demo/1.0/json",
    "/project/demo/",
    "/-/why/demo",
    "/-/why/up/1.0",
    "/-/search?q=demo",
    "/-/ready",
    "/-/metrics",
    f"/integrity/demo/1.0/{WHEEL.filename}/provenance",
    "/_/oidc/audience",
)
POSTED = ("/", "/legacy/", "/RPC2", "/pypi", "/_/oidc/mint-token")


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.fixture
def program(tmp_path: Path, packages: Path, environment: dict[str, str]) -> Program:
    WHEEL.write(packages)
    return Program(tmp_path, environment)


def make_token(program: Program, name: str) -> str:
    done = program.run("token", "create", name, "--actions", "update,download,list")
    assert done.returncode == 0, done
    return done.stdout.strip()


def name_headers(secrets: list[str]) -> Iterator[dict[str, str]]:
    """Where clients put secrets, and where they put them by mistake."""
    for secret in secrets:
        for authorization in (
            *(basic("alice", secret), basic("__token__", secret), basic(secret, ""), basic(secret, secret)),
            *(f"Bearer {secret}", f"token {secret}", f"Digest {secret}", f"Basic {secret}", secret),
        ):
            yield {"authorization": authorization}
        yield {"proxy-authorization": f"Bearer {secret}", "cookie": f"session={secret}", "x-api-key": secret}


def post_everything(server: Server, client: httpx2.Client, secret: str) -> None:
    fields = upload_fields(WHEEL, password=secret, comment=secret)
    client.post(f"{server.url}/", data=fields, files={"content": (WHEEL.filename, WHEEL.content)})
    if secret == WRONG:
        # Nobody can tell it from a project's name.
        return
    mistaken = (
        fields | {"name": secret},
        fields | {"version": secret},
        fields | {"filetype": secret},
        fields | {"sha256_digest": secret},
        fields | {":action": secret},
        fields | {"attestations": secret},
        fields | {"protocol_version": secret},
        {":action": "remove_pkg", "name": secret, "version": secret},
    )
    for form in mistaken:
        client.post(f"{server.url}/legacy/", data=form, files={"content": (WHEEL.filename, WHEEL.content)})
    client.post(f"{server.url}/", data=fields, files={"content": (f"{secret}-1.0.zip", WHEEL.content)})
    for path in POSTED:
        for body in (secret.encode(), json.dumps({"token": secret}).encode(), json.dumps([secret]).encode()):
            client.post(f"{server.url}{path}", content=body)
            client.post(f"{server.url}{path}", content=body, headers={"content-type": "application/json"})


def ask_for_everything(server: Server, secrets: list[str], token: str) -> None:
    with httpx2.Client(trust_env=False, timeout=60) as client:
        for number, headers in enumerate(name_headers(secrets)):
            for path in PATHS:
                # From elsewhere: whoever guesses has to wait.
                client.get(server.url + path, headers=headers | {"x-forwarded-for": f"192.0.2.{number}"})
        for authorization in (basic("alice", RIGHT), f"Bearer {token}"):
            client.headers["authorization"] = authorization
            for path in PATHS:
                assert client.get(server.url + path).status_code in {200, 404, 503}, path
            for secret in secrets:
                post_everything(server, client, secret)


def read_state(packages: Path) -> Iterator[tuple[Path, bytes]]:
    for path in (packages / ".pypiserver-ng").rglob("*"):
        if path.is_file():
            yield path, path.read_bytes()


def test_no_secret_is_written_down(
    serve: Serve, program: Program, packages: Path, passwords: Path, upstream: FakeUpstream, tmp_path: Path
) -> None:
    """Neither by the server at its most talkative, nor by what commands tell of it."""
    upstream.add("up", build_wheel("up", "1.0"))
    token, revoked = make_token(program, "kept"), make_token(program, "revoked")
    assert program.run("token", "revoke", "revoked").returncode == 0
    log = tmp_path / "log"
    server = serve(
        *("-P", str(passwords), "-a", "update,download,list", "-vv", "--log-format", "json", "--log-file", str(log)),
        *("--trusted-proxy", "127.0.0.1"),
        *("--fallback-mode", "cache", "--fallback-url", upstream.url.replace("://", f"://me:{UPSTREAM}@")),
    )
    # The last one is what a random person's token of another index looks like.
    ask_for_everything(server, [WRONG, token, revoked, JWT, SENT_URL, PUBLIC_TOKEN], token)
    told = program.run("events", "--json").stdout + program.run("events", "--limit", "10000").stdout
    told += program.run("token", "list").stdout
    assert server.stop() == 0
    written = [*read_state(packages), (log, log.read_bytes()), (Path("stderr"), server.log.encode())]
    written.append((Path("events"), told.encode()))
    assert b'"refused"' in told.encode()
    assert len(log.read_bytes().splitlines()) > 1000
    secrets = {
        "right password": RIGHT,
        "wrong password": WRONG,
        "token": token[-43:],
        "revoked token": revoked[-43:],
        "identity": JWT.rpartition(".")[2],
        "upstream's": UPSTREAM,
        "in a URL": "s3nt-in-a-url",
        "another index's": PUBLIC_TOKEN[10:],
    }
    encoded = {f"{name}, encoded": base64.b64encode(secret.encode())[4:-4] for name, secret in secrets.items()}
    everything = {name: secret.encode() for name, secret in secrets.items()} | encoded
    found = [
        (name, path.name, line[:300])
        for path, content in written
        for name, secret in everything.items()
        if len(secret) > 5 and secret in content
        for line in content.splitlines()
        if secret in line
    ]
    assert found == []

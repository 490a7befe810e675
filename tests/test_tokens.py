"""Tokens from the command line to the client: made, shown once, used, listed and revoked beside a running server."""

import re
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from tests.tools.distributions import build_wheel, make_wheel
from tests.tools.program import Program
from tests.tools.server import Serve, wait_until
from tests.tools.uploads import encode_upload

CLOSED = ("-a", "list,download,update", "--disable-fallback")
_TOKEN = re.compile(r"pypi-ng-[0-9a-f]{16}-[A-Za-z0-9_-]{43}\n")


@pytest.fixture
def program(tmp_path: Path, packages: Path, environment: dict[str, str]) -> Program:
    make_wheel(packages, "acme-core", "1.0")
    return Program(tmp_path, environment)


def create(program: Program, *args: str) -> str:
    """The token: nothing else is on standard output."""
    done = program.run("token", "create", *args)
    assert done.returncode == 0, done
    assert _TOKEN.fullmatch(done.stdout), done.stdout
    return done.stdout.strip()


def list_tokens(program: Program) -> list[list[str]]:
    """The cells of each line below the head."""
    done = program.run("token", "list")
    assert (done.returncode, done.stderr) == (0, ""), done
    return [re.split(r"  +", line) for line in done.stdout.splitlines()[1:]]


@pytest.mark.parametrize("workers", ("1", "2"))
def test_a_token_of_its_time(serve: Serve, program: Program, workers: str) -> None:
    """Made beside the server, valid at once in every worker, listed with its last use, and refused once revoked."""
    server = serve(*CLOSED, "--workers", workers)
    token = create(program, "deploy", "--projects", "Acme_*", "--projects", "tools", "--expires", "90d")
    assert create(program, "other") != token
    with httpx2.Client(auth=("__token__", token), trust_env=False) as client:
        for _ in range(8):
            assert client.get(f"{server.simple}acme-core/", headers={"connection": "close"}).status_code == 200
        assert client.get(f"{server.simple}vault/").status_code == 403

        def is_used() -> bool:
            return list_tokens(program)[0][6] != "never"

        wait_until(is_used, within=5)
        (name, projects, actions, until, created, expires, used), other = list_tokens(program)
        assert (name, projects, actions, until) == ("deploy", "acme-*,tools", "download,list,update", "-")
        assert created[:10] <= used[:10] < expires[:10]
        assert (other[0], other[1], other[5], other[6]) == ("other", "*", "never", "never")
        done = program.run("token", "revoke", "deploy")
        assert (done.returncode, done.stdout) == (0, "deploy is revoked\n")

        def is_refused() -> bool:
            return client.get(f"{server.simple}acme-core/", headers={"connection": "close"}).status_code == 401

        for _ in range(8):
            wait_until(is_refused, within=1)
    assert [row[0] for row in list_tokens(program)] == ["other"]
    assert token not in server.log


def test_clients_upload_with_a_token(serve: Serve, program: Program, packages: Path, tmp_path: Path) -> None:
    """As the password of __token__ with twine, as its token with uv; and only what the token is for."""
    server = serve("--disable-fallback", "-v")
    token = create(program, "ci", "--projects", "acme-*", "--actions", "update")
    wheels = [build_wheel("acme-core", "2.0"), build_wheel("acme-new", "1.0"), build_wheel("vault", "1.0")]
    for wheel in wheels:
        wheel.write(tmp_path)
    twine = (sys.executable, "-m", "twine", "upload", "--non-interactive", "--disable-progress-bar")
    uv = (str(Path(sys.executable).with_name("uv")), "publish", "--no-config")
    commands = (
        (*twine, "--repository-url", f"{server.url}/", "-u", "__token__", "-p", token, wheels[0].filename),
        (*uv, "--publish-url", f"{server.url}/legacy/", "--token", token, wheels[1].filename),
        (*twine, "--repository-url", f"{server.url}/", "-u", "__token__", "-p", token, wheels[2].filename),
    )
    codes = []
    for command in commands:
        done = subprocess.run(
            command, cwd=tmp_path, env=program.environment, capture_output=True, encoding="utf-8", check=False
        )
        codes.append(done.returncode)
        assert token not in done.stdout + done.stderr
    assert codes == [0, 0, 1]
    assert "token:ci may not create vault" in done.stdout + done.stderr
    assert sorted(path.name for path in packages.glob("*.whl")) == [
        "acme_core-1.0-py3-none-any.whl",
        wheels[0].filename,
        wheels[1].filename,
    ]
    assert token not in server.log
    events = program.run("events", "--json").stdout
    assert events.count('"user": "token:ci"') >= 3
    assert token not in events


def test_bearer(serve: Serve, program: Program) -> None:
    """RFC 6750, as programs of one's own send it."""
    server = serve(*CLOSED)
    token = create(program, "ci")
    headers = {"authorization": f"Bearer {token}"}
    body, content_type = encode_upload(build_wheel("acme-new", "1.0"))
    answer = httpx2.post(f"{server.url}/", content=body, headers=headers | {"content-type": content_type})
    assert answer.status_code == 200
    assert httpx2.get(f"{server.simple}acme-new/", headers=headers).status_code == 200
    assert httpx2.get(f"{server.simple}acme-new/", headers={"authorization": f"Bearer {token}x"}).status_code == 401


@pytest.mark.parametrize(
    ("args", "says"),
    (
        (("a b",), "'a b' is no name"),
        (("",), "'' is no name"),
        (("publisher:x",), "'publisher:x' is no name"),
        (("x" * 65,), "is no name: take 1 to 64"),
        (("ci", "--projects", "a b"), "must be a project name or pattern"),
        (("ci", "--actions", "delete"), "some of update, download, list"),
        (("ci", "--actions", "."), "--actions must name at least one of list, download, update"),
        (("ci", "--expires", "soon"), "must be a duration such as 90s, 12h or 4d"),
        (("ci", "--expires", "0"), "must be longer than '0'"),
        (("ci", "--until-version", "new"), "must be a version such as 2.4, not 'new'"),
    ),
)
def test_what_is_no_token(program: Program, args: tuple[str, ...], says: str) -> None:
    assert says in program.refuse("token", "create", *args)


def test_what_cannot_be_done(program: Program) -> None:
    """A name that is taken, and one that is not there: one line, exit code 1."""
    create(program, "ci")
    for args, says in ((("create", "ci"), "there is a token ci already"), (("revoke", "cd"), "there is no token 'cd'")):
        done = program.run("token", *args)
        assert (done.returncode, done.stdout) == (1, "")
        assert says in done.stderr
        assert len(done.stderr.splitlines()) == 1

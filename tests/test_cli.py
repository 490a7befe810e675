"""The command line as people and init systems use it: real processes, exit codes, and what they read on stderr."""

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from pypiserver_ng import __version__
from pypiserver_ng.cli.options import flags_of
from pypiserver_ng.config.settings import SETTINGS
from tests.tools.distributions import build_wheel, make_sdist, make_wheel
from tests.tools.program import Program
from tests.tools.server import OPEN, Serve, Server, start_server, wait_until

#: Nothing is asked of the machine's pip, and nothing is said of the fallback.
CLOSED = ("--disable-fallback", "--host", "127.0.0.1", "--port", "0")


@pytest.fixture
def program(tmp_path: Path, packages: Path, environment: dict[str, str]) -> Program:
    """Runs in a directory that has an empty `packages` and some files that are wrong in one way each."""
    (tmp_path / "broken.toml").write_text("port = = 1\n")
    (tmp_path / "unknown.toml").write_text("prot = 1\n")
    (tmp_path / "latin.toml").write_bytes(b"host = '\xff'\n")
    (tmp_path / "latin.html").write_bytes(b"\xff")
    (tmp_path / "file").write_text("x")
    (tmp_path / "closed" / "catalog.sqlite").mkdir(parents=True)
    return Program(tmp_path, environment)


# Bad usage.

BAD_USAGES: tuple[tuple[tuple[str, ...], str], ...] = (
    (("--bogus",), "--bogus"),
    (("run", "--bogus"), "--bogus"),
    (("--prot", "1"), "--port"),
    (("--port",), "--port"),
    (("--port", "70000"), "70000"),
    (("--port", "http"), "http"),
    (("missing",), "missing"),
    (("packages", "missing"), "missing"),
    (("file",), "file"),
    (("",), "PACKAGE_DIR"),
    (("--passwords", "missing"), "missing"),
    (("-P", "."), "-a ."),
    (("-a", "."), "-P ."),
    (("-P", ".", "-a", "list"), "-a ."),
    (("-a", "everything"), "everything"),
    (("--config", "missing.toml"), "missing.toml"),
    (("--config", "packages"), "packages"),
    (("--config", "broken.toml"), "line 1"),
    (("--config", "latin.toml"), "latin.toml"),
    (("--config", "unknown.toml"), "did you mean 'port'"),
    (("--fallback-url", "mirror.example"), "--fallback-url"),
    (("--fallback-mode", "cache-it"), "redirect"),
    (("--reserve", "acme/*"), "--reserve"),
    (("--max-upload-size", "lots"), "--max-upload-size"),
    (("--health-endpoint", "/simple"), "--health-endpoint"),
    (("--server-base-url", "/a b"), "--server-base-url"),
    (("--trusted-proxy", "somewhere"), "--trusted-proxy"),
    (("--cache-control", "soon"), "--cache-control"),
    (("--welcome", "missing"), "missing"),
    (("--welcome", "latin.html"), "UTF-8"),
    (("--log-file", "missing/log"), "missing/log"),
    (("--log-format", "xml"), "json"),
    (("--state-dir", "file"), "--state-dir"),
    (("--state-dir", "~no-such-user-here/x"), "--state-dir"),
    (("--state-dir", "closed"), "closed"),
    (("--host", "no.such.host.invalid"), "no.such.host.invalid"),
    (("--host", "a" * 70), "--host"),
    (("check-config", "--port", "x"), "--port"),
    (("check-config", "--bogus"), "--bogus"),
    (("check-config", "/no/such/directory"), "/no/such/directory"),
    (("check-config", "--passwords", "missing"), "missing"),
    (("check-config", "--welcome", "missing"), "missing"),
    (("check-config", "--log-file", "missing/log"), "missing/log"),
    (("check-config", "--log-file", "file/log"), "file/log"),
    (("check-config", "--log-file", "packages"), "it is a directory"),
    (("check-config", "--state-dir", "file"), "--state-dir"),
    (("check-config", "--state-dir", "file/state"), "file is not a directory"),
)


@pytest.mark.parametrize(("args", "word"), BAD_USAGES, ids=[" ".join(args) for args, _ in BAD_USAGES])
def test_bad_usage_is_one_line(program: Program, args: tuple[str, ...], word: str) -> None:
    """Exit code 2, nothing on stdout, and a line that says what to change."""
    assert word in program.refuse(*args, PYPISERVER_NG_DISABLE_FALLBACK="1", PYPISERVER_NG_PORT="0")


BAD_ENVIRONMENTS = (
    ({"PYPISERVER_NG_PORT": "x"}, "PYPISERVER_NG_PORT"),
    ({"PYPISERVER_NG_PROT": "1"}, "PYPISERVER_NG_PORT"),
    ({"PYPISERVER_NG_CONFIG": "missing.toml"}, "missing.toml"),
    ({"PYPISERVER_NG_PACKAGES": ":"}, "directory"),
    ({"PYPISERVER_NG_FALLBACK_URL_FILE": "missing"}, "missing"),
)


@pytest.mark.parametrize(("env", "word"), BAD_ENVIRONMENTS)
def test_a_bad_environment_is_one_line(program: Program, env: dict[str, str], word: str) -> None:
    """The variable is named."""
    assert word in program.refuse("check-config", **env)


@pytest.mark.parametrize("access", ((), OPEN), ids=("closed", "open"))
def test_a_port_in_use_is_one_line(program: Program, access: tuple[str, ...]) -> None:
    """Also for a server that would have had a notice to give."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert port in program.refuse("--disable-fallback", "--host", "127.0.0.1", "--port", port, *access)


def test_a_default_directory_that_cannot_be_made(program: Program, packages: Path) -> None:
    """A file has its name."""
    packages.rmdir()
    packages.touch()
    assert "packages" in program.refuse("--disable-fallback")


#: Root may read everything, so it has to be somebody else; others may not be able to load modules afterwards.
AS_SOMEBODY = """
import os, pypiserver_ng.app, pypiserver_ng.index.bringing
from pypiserver_ng.cli import main
os.geteuid() or os.setuid(65534)
main()
"""

USERS_OF_THE_STATE = (
    ("fetch", "--cache-only", "six", "--fallback-url", "http://127.0.0.1:9/", "--"),
    ("update", "--fallback-url", "http://127.0.0.1:9/", "--"),
    ("check-config",),
    ("run", "--port", "0"),
    ("cache", "info"),
    ("why", "six"),
    ("verify",),
)


@pytest.mark.parametrize("command", USERS_OF_THE_STATE, ids=lambda command: command[0])
def test_a_state_that_is_closed_is_one_line(environment: dict[str, str], command: tuple[str, ...]) -> None:
    """To whoever may not look into the directory that holds it."""
    environment |= {"PYPISERVER_NG_STATE_DIR": "closed/state", "PYTHONPATH": str(Path(__file__).parents[1])}
    with tempfile.TemporaryDirectory() as home:
        Path(home).chmod(0o755)
        (Path(home) / "packages").mkdir()
        (Path(home) / "closed" / "state").mkdir(parents=True)
        (Path(home) / "closed").chmod(0o700 if os.geteuid() == 0 else 0)
        call = [sys.executable, "-c", AS_SOMEBODY, *command, "packages"]
        done = subprocess.run(call, cwd=home, env=environment, capture_output=True, text=True, timeout=60, check=False)
        (Path(home) / "closed").chmod(0o700)
    assert (done.returncode, done.stdout) == (2, ""), done
    (line,) = done.stderr.splitlines()
    assert line.startswith("pypiserver-ng: error: cannot use closed/state")
    assert "Permission denied; see --state-dir" in line


# What says something and ends.


def test_the_version(program: Program) -> None:
    """Alone on stdout."""
    done = program.run("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{__version__}\n", "")


def test_the_help_of_run_names_every_option(program: Program) -> None:
    """Each that does something, with its short forms, and none that is only accepted."""
    done = program.run("run", "--help")
    assert done.returncode == 0
    for setting in SETTINGS:
        if setting.form == "argument":
            assert setting.metavar in done.stdout
            continue
        for flag in flags_of(setting):
            named = re.search(rf"(?<![\w-]){flag}(?![\w-])", done.stdout)
            assert bool(named) is not setting.inert, flag
    assert "--config" in done.stdout


@pytest.mark.parametrize("group", ("cache", "upstream"))
def test_a_group_alone_shows_its_help(program: Program, group: str) -> None:
    """As it does with --help, but on stderr and as bad usage."""
    done = program.run(group)
    asked = program.run(group, "--help")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", asked.stdout)
    assert len(asked.stdout.splitlines()) > 5


@pytest.mark.parametrize(
    ("args", "path"),
    (
        (("cache", "remove"), "cache remove"),
        (("cache", "remove", "--state-dir", "missing", "demo"), "cache remove"),
        (("--state-dir", "missing", "cache", "info"), "cache info"),
        (("cache", "forget"), "cache"),
        (("upstream", "check", "--bogus"), "upstream check"),
        (("yank",), "yank"),
        (("--bogus",), "run"),
    ),
)
def test_the_hint_names_the_command(program: Program, args: tuple[str, ...], path: str) -> None:
    """With its subcommand."""
    assert program.refuse(*args).endswith(f" (see pypiserver-ng {path} --help)")


def test_the_help_names_every_command(program: Program) -> None:
    """And how to get to the options."""
    done = program.run("--help")
    assert done.returncode == 0
    for word in ("run", "check-config", "run --help", "PYPISERVER_NG_", "--version"):
        assert word in done.stdout


def test_check_config_starts_nothing(program: Program, packages: Path) -> None:
    """It only says that the configuration is valid."""
    (program.cwd / "good.toml").write_text("port = 80\nreserve = ['acme-*']\n")
    written = ("--state-dir", "deep/state", "--log-file", "log")
    before = sorted(program.cwd.rglob("*"))
    done = program.run("check-config", "--config", "good.toml", "--overwrite", *written, packages)
    assert (done.returncode, done.stderr) == (0, "")
    assert "valid" in done.stdout
    assert sorted(program.cwd.rglob("*")) == before


@pytest.mark.parametrize(
    ("path", "message"),
    (
        ("missing", "missing (--osv)"),
        ("file", "neither a directory nor a whole zip file"),
        ("packages", "holds no OSV record"),
    ),
)
def test_check_config_reads_the_records_of_malware(program: Program, path: str, message: str) -> None:
    """As run does when it starts."""
    cache = ("--fallback-mode", "cache", "--fallback-url", "http://127.0.0.1:9/")
    assert message in program.refuse("check-config", *cache, "--osv", path)


def test_check_config_without_the_default_directory(program: Program, packages: Path) -> None:
    """Which run would make; all else is checked the same."""
    packages.rmdir()
    assert program.run("check-config").returncode == 0
    assert "missing" in program.refuse("check-config", "--welcome", "missing")
    assert not packages.exists()


# What starts.

Start = Callable[..., Server]


@pytest.fixture
def start(tmp_path: Path, environment: dict[str, str], request: pytest.FixtureRequest) -> Start:
    """Starts the program with exactly these arguments, in a directory that has `packages`."""

    def launch(*args: str, **env: str) -> Server:
        process = subprocess.Popen(
            [sys.executable, "-m", "pypiserver_ng", *args],
            cwd=tmp_path,
            env={**environment, "PYPISERVER_NG_DISABLE_FALLBACK": "1", **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        server = Server(process)
        request.addfinalizer(server.kill)
        server.wait_until_ready()
        return server

    return launch


LOCAL = ("--host", "127.0.0.1", "-p", "0")
WAYS: tuple[tuple[tuple[str, ...], dict[str, str]], ...] = (
    ((*LOCAL, "packages"), {}),
    (("run", *LOCAL, "packages"), {}),
    ((*LOCAL, "run", "packages"), {}),
    (("-p", "0", "run", "-i", "127.0.0.1"), {}),
    (("-v", "-p0", "--host=127.0.0.1", "run", "packages"), {}),
    ((*LOCAL, "--", "packages"), {}),
    (LOCAL, {}),
    (("packages", *LOCAL), {}),
    (("run",), {"PYPISERVER_NG_PORT": "0", "PYPISERVER_NG_HOST": "127.0.0.1", "PYPISERVER_NG_PACKAGES": "packages"}),
    (("--config", "some.toml"), {}),
    ((), {"PYPISERVER_NG_CONFIG": "some.toml"}),
)


@pytest.mark.parametrize(("args", "env"), WAYS)
def test_every_way_to_start(
    start: Start, tmp_path: Path, packages: Path, args: tuple[str, ...], env: dict[str, str]
) -> None:
    """With and without `run`, options before and after it, from any source: the same server."""
    make_wheel(packages, "demo", "1.0")
    (tmp_path / "some.toml").write_text("port = 0\nhost = '127.0.0.1'\npackages = 'packages'\n")
    server = start(*args, **env)
    assert "ready: 1 project, 1 file at http://127.0.0.1:" in server.log
    assert server.stop() == 0


def test_the_ready_line(serve: Serve, packages: Path, tmp_path: Path) -> None:
    """Counts of every directory, and a URL that works as it is printed."""
    make_wheel(packages, "demo", "1.0")
    make_sdist(packages, "demo", "1.0")
    make_wheel(tmp_path / "second", "other", "1.0")
    server = serve(str(tmp_path / "second"), *OPEN)
    match = server.wait_for_log(r"^ready: (.*) at (http://127\.0\.0\.1:\d+/simple/)$")
    assert match[1] == "2 projects, 3 files"
    assert httpx2.get(match[2], trust_env=False).status_code == 200


def test_a_prefix(serve: Serve, packages: Path) -> None:
    """Everything is below it and nothing beside it; the ready line has it."""
    make_wheel(packages, "demo", "1.0")
    server = serve("--server-base-url", "/team/pypi/", *OPEN)
    root = server.url.removesuffix("/team/pypi")
    assert server.url != root
    paths = ("/simple/", "/simple/demo/", "/health", "/", "/packages/demo-1.0-py3-none-any.whl", "/-/ready")
    with httpx2.Client(trust_env=False) as client:
        assert [client.get(server.url + path).status_code for path in paths] == [200] * len(paths)
        assert {client.get(root + path).status_code for path in ("/simple/", "/health", "/", "/team/", "/-/ready")} == {
            404
        }
        redirect = client.get(server.url)
        assert redirect.is_redirect
        assert redirect.headers["location"] == "pypi/"


def test_health(serve: Serve) -> None:
    """Where it was asked for."""
    server = serve("--health-endpoint", "/up/now")
    answer = httpx2.get(f"{server.url}/up/now", trust_env=False)
    assert (answer.status_code, answer.text) == (200, "Ok")


INERT = (("--backend", "simple-dir"), ("--server", "gunicorn"), ("--hash-algo", "md5"), ("--log-frmt", "%(message)s"))


def test_options_without_effect_have_one_notice(start: Start) -> None:
    """However many there are."""
    server = start(*LOCAL, *OPEN, *(word for pair in INERT for word in pair))
    notices = [line for line in server.log.splitlines() if "no effect" in line]
    assert len(notices) == 1
    for flag, _ in INERT:
        assert flag in notices[0]


NOTICES: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (OPEN, ("WARNING: uploads and deletions are open to everyone:",)),
    (("-a", "list", "-P", "users"), ("WARNING: uploads and deletions are open to everyone, though list needs cred",)),
    (
        ("-a", "list,download", "-P", "users"),
        ("WARNING: uploads and deletions are open to everyone, though download and list need credentials",),
    ),
    (("-a", "update,list", "-P", "users"), ()),
    (("-P", "users"), ()),
    ((), ("note: no password file, so update needs a token",)),
    (("-a", "update,download"), ("note: no password file, so download and update need a token",)),
    (("-a", "list"), ("note: no password file, so list needs a token", "WARNING: uploads and deletions are open to")),
)


@pytest.mark.parametrize(("args", "notices"), NOTICES)
def test_what_is_open_is_said(
    start: Start, passwords: Path, tmp_path: Path, args: tuple[str, ...], notices: tuple[str, ...]
) -> None:
    """Exactly these lines come before the ready line."""
    passwords.rename(tmp_path / "users")
    server = start(*LOCAL, *args)
    *before, ready = server.log.splitlines()
    assert ready.startswith("ready: ")
    assert len(before) == len(notices)
    for line, notice in zip(before, notices, strict=True):
        assert line.startswith(notice)


def test_what_entries_open_is_said(start: Start, tmp_path: Path) -> None:
    """Where they decide, --authenticate is not spoken of."""
    entries = (
        ("alice", "*", ["upload"]),
        ("anyone", "acme-*", ["list", "delete"]),
        ("anyone", "*", ["list", "download"]),
    )
    text = "".join(f'[[access]]\nwho = ["{who}"]\nprojects = ["{glob}"]\nmay = {may}\n' for who, glob, may in entries)
    (tmp_path / "rules.toml").write_text(text)
    *before, _ = start(*LOCAL, "--config", "rules.toml", "-a", "list").log.splitlines()
    assert before == [
        "note: no password file, so that no user has the rights of [[access]]: give one with -P FILE",
        "WARNING: anyone may delete projects, says [[access]] number 2 (acme-*)",
    ]


def test_entries_without_effect_are_named(start: Start, program: Program) -> None:
    """By run and by check-config, which takes them for valid."""
    (program.cwd / "late.toml").write_text('[[policy]]\nprojects = ["*"]\n[[policy]]\nprojects = ["acme-*"]\n')
    warning = "WARNING: [[policy]] number 2 (acme-*) is never reached"
    done = program.run("check-config", "--config", "late.toml")
    assert done.returncode == 0
    assert done.stderr.startswith(warning)
    assert start(*LOCAL, *OPEN, "--config", "late.toml").log.splitlines()[-2].startswith(warning)


# Logs.


def test_a_log_of_json_lines(start: Start, tmp_path: Path, packages: Path) -> None:
    """Each line of the log file is one object; the file's log is the log."""
    make_wheel(packages, "demo", "1.0")
    server = start(*LOCAL, "-v", "--log-format", "json", "--log-file", "log", "--log-stream", "none")
    assert httpx2.get(f"{server.url}/simple/demo/?a=%0Ab", trust_env=False).status_code == 200
    server.stop()
    events = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert all({"time", "level", "logger", "message"} <= event.keys() for event in events)
    assert any("/simple/demo/" in event["message"] for event in events)
    # What is said to the person who starts it comes on stderr all the same, in JSON but for the ready line.
    *notices, ready = server.log.splitlines()
    assert ready.startswith("ready")
    assert notices
    assert all("message" in json.loads(line) for line in notices)


def test_a_quiet_log(serve: Serve, packages: Path) -> None:
    """Without -v there is no line for a request, and none for a file that is in order."""
    make_wheel(packages, "demo", "1.0")
    server = serve(*OPEN)
    assert httpx2.get(f"{server.simple}demo/", trust_env=False).status_code == 200
    server.stop()
    assert re.fullmatch(r"WARNING: uploads [^\n]*\nready: [^\n]*\n", server.log)


def test_a_hostile_name_stays_on_its_line(serve: Serve, packages: Path) -> None:
    """What a request or a file smuggles in is escaped."""
    strange = packages / "line\nbreak"
    strange.mkdir()
    (strange / "demo-1.0.tar.gz").write_bytes(b"not an archive")
    server = serve("-v", *OPEN)
    server.wait_for_log(r"line\\nbreak/demo-1\.0\.tar\.gz cannot be opened")


# Stopping.


def test_a_stopped_server_ends_well(serve: Serve) -> None:
    """SIGTERM is a clean end: exit code 0, at once when nothing is in flight, and the port is free."""
    server = serve()
    assert httpx2.get(f"{server.url}/health", trust_env=False).status_code == 200
    assert server.stop() == 0
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"{server.url}/health", trust_env=False)


def test_what_is_in_flight_is_finished(serve: Serve, packages: Path) -> None:
    """An upload that is on its way when SIGTERM comes is stored and answered; nobody new is let in."""
    server = serve(*OPEN)
    wheel = build_wheel("demo", "1.0")
    files = {"content": (wheel.filename, wheel.content)}
    request = httpx2.Request("POST", f"{server.url}/", data={":action": "file_upload"}, files=files)
    body = request.read()
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    with connect(server) as connection:
        connection.sendall(f"POST / HTTP/1.1\r\n{head}\r\n".encode() + body[:-100])
        assert httpx2.get(f"{server.url}/health", trust_env=False).status_code == 200
        server.process.terminate()
        wait_until(lambda: refuses_connections(server), within=10)
        connection.sendall(body[-100:])
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
    assert server.stop() == 0
    assert (packages / wheel.filename).read_bytes() == wheel.content


def connect(server: Server) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def refuses_connections(server: Server) -> bool:
    try:
        connect(server).close()
    except OSError:
        return True
    return False


def test_a_killed_server_starts_again(packages: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    """What it knew and what it served is there."""
    make_wheel(packages, "demo", "1.0")
    for _ in range(2):
        server = start_server(*OPEN, packages=packages, cwd=tmp_path, env=environment)
        assert httpx2.get(f"{server.simple}demo/", trust_env=False).status_code == 200
        server.kill()


def test_rules_without_effect_are_named(program: Program, passwords: Path) -> None:
    """Of [[access]] as of [[policy]]; and a publisher that is there for tokens alone needs nothing else installed."""
    (program.cwd / "rules.toml").write_text(
        '[[access]]\nwho = ["alice", "alce"]\nprojects = ["*"]\nmay = ["list"]\n'
        '[[access]]\nwho = ["alice"]\nprojects = ["acme-*"]\nmay = ["upload"]\n'
        '[[publisher]]\nissuer = "https://issuer.example"\nclaims = { sub = "x" }\nprojects = ["acme-*"]\n'
    )
    done = program.run("check-config", "--config", "rules.toml", "-P", passwords)
    assert done.returncode == 0
    first, second, third = done.stderr.splitlines()
    assert first.startswith("WARNING: [[access]] number 1 (*) names 'alce', who cannot log in")
    assert second.startswith("WARNING: [[access]] number 2 (acme-*) is never reached")
    assert third.startswith("note: [[publisher]] number 1 gets tokens, but verifies no attestations")

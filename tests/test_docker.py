"""The container image: what its build file promises, its health check on a real server, and a real build.

The build needs buildah, root, and TEST_BASE_ROOTFS: a directory with the root file system of a base image (Python
3.11 or newer with venv), as debootstrap makes one.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.tools.certificates import make_certificate
from tests.tools.clients import Client
from tests.tools.distributions import make_wheel
from tests.tools.server import OPEN, Serve, Server

ROOT = Path(__file__).parents[1]
CONTEXT_IGNORES = (ROOT / ".dockerignore").read_text().splitlines()
UID = 9898

Instruction = tuple[str, str]


def read_stages() -> tuple[list[Instruction], list[list[Instruction]]]:
    """The instructions before the first FROM, and those of each stage, as (keyword, rest)."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")]
    logical = [line for line in re.sub(r"\\\n", "", "\n".join(lines)).splitlines() if line.strip()]
    head: list[Instruction] = []
    stages: list[list[Instruction]] = []
    for line in logical:
        keyword, _, rest = line.partition(" ")
        if keyword == "FROM":
            stages.append([])
        (stages[-1] if stages else head).append((keyword, rest.strip()))
    return head, stages


HEAD, (BUILD, FINAL) = read_stages()


def values(stage: list[Instruction], keyword: str) -> list[str]:
    return [rest for word, rest in stage if word == keyword]


def health_command() -> list[str]:
    """The program and arguments of the health check."""
    command: list[str] = json.loads(values(FINAL, "HEALTHCHECK")[0].partition(" CMD ")[2])
    return command


def test_base_image_is_a_build_argument_of_every_stage() -> None:
    """Whoever builds chooses the base once, and the default names no registry."""
    ((keyword, argument),) = HEAD
    name, _, default = argument.partition("=")
    assert (keyword, name) == ("ARG", "BASE_IMAGE")
    assert re.fullmatch(r"python:3\.\d+-slim", default)
    bases = [values(stage, "FROM")[0].split()[0] for stage in (BUILD, FINAL)]
    assert bases == ["${BASE_IMAGE}"] * 2


@pytest.mark.parametrize(
    ("keyword", "value"),
    (
        ("USER", "9898:9898"),
        ("WORKDIR", "/data"),
        ("VOLUME", "/data/packages"),
        ("EXPOSE", "8080"),
        ("ENV", "HOME=/data PYTHONUNBUFFERED=1"),
        ("COPY", "--from=build /opt/pypiserver-ng /opt/pypiserver-ng"),
    ),
)
def test_image_keeps_the_habits_of_pypiservers(keyword: str, value: str) -> None:
    """Uid, directories and port are those of the image it replaces, and nothing else is set or copied in."""
    assert [value] == values(FINAL, keyword)


def test_arguments_replace_the_default_command() -> None:
    """The entry point is the program; the default command names no directory, so that a variable still can."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        (program,) = tomllib.load(file)["project"]["scripts"]
    assert [[program]] == [json.loads(value) for value in values(FINAL, "ENTRYPOINT")]
    assert [json.loads(value) for value in values(FINAL, "CMD")] == [["run"]]


def test_directories_are_made_before_the_volume() -> None:
    """What happens to a directory after VOLUME is lost in some builders."""
    keywords = [keyword for keyword, _ in FINAL]
    last_run = max(position for position, keyword in enumerate(keywords) if keyword == "RUN")
    assert last_run < keywords.index("USER") < keywords.index("VOLUME")


def test_index_of_the_build_stays_in_the_build() -> None:
    """Pip's index and certificate are arguments of the first stage, and no variable of any image."""
    assert values(BUILD, "ARG") == ["PIP_INDEX_URL", "PIP_CERT"]
    assert values(FINAL, "ARG") == []
    assert re.findall(r"PIP_INDEX_URL|PIP_CERT", " ".join(values(BUILD, "ENV") + values(FINAL, "ENV"))) == []


def test_context_holds_what_the_build_copies_and_nothing_else() -> None:
    """The list of exceptions in .dockerignore is the list of files that the build copies."""
    copied = {source for value in values(BUILD, "COPY") for source in value.split()[:-1]}
    assert "*" in CONTEXT_IGNORES
    assert copied == {line[1:] for line in CONTEXT_IGNORES if line.startswith("!")}
    assert [source for source in copied if not (ROOT / source).exists()] == []


needs_proc = pytest.mark.skipif(not Path("/proc/1/cmdline").exists(), reason="the image is a Linux image")


def check_health(env: dict[str, str], *process_one: str) -> int:
    """The exit status of the image's health check, where process 1 has `process_one` in its command line."""
    _, *arguments = health_command()
    command = [sys.executable, *arguments]
    if process_one:
        # A shell in the place of an init: it waits for the check, and its command line goes on with the server's.
        shell = ["sh", "-c", '"$CHECK_PYTHON" -I -c "$CHECK"; exit $?', *process_one]
        command = [*own_processes(), *shell]
        env = {**env, "CHECK_PYTHON": sys.executable, "CHECK": arguments[-1]}
    return subprocess.run(command, env=env, capture_output=True, check=False, timeout=30).returncode


def own_processes() -> list[str]:
    """The start of a command line that becomes process 1, or a skip where the machine does not let us."""
    command = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*command, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("this machine lets nobody have processes of their own (unshare --user --pid)")
    return command


@needs_proc
def test_health_check_finds_the_port_in_the_environment(serve: Serve, environment: dict[str, str]) -> None:
    """The check succeeds while the server runs and fails when it has stopped."""
    server = serve(*OPEN)
    port = server.url.rpartition(":")[2]
    for variable in ("PYPISERVER_PORT", "PYPISERVER_NG_PORT"):
        assert check_health({**environment, variable: port}) == 0
    server.stop()
    assert check_health({**environment, "PYPISERVER_PORT": port}) != 0


@needs_proc
def test_health_check_speaks_tls(serve: Serve, environment: dict[str, str], tmp_path: Path) -> None:
    """With a server that does; whom the certificate names tells nothing of its health."""
    certificate, key = make_certificate(tmp_path)
    variables = {"PYPISERVER_NG_CERTFILE": str(certificate), "PYPISERVER_NG_KEYFILE": str(key)}
    server = serve(*OPEN, env=variables)
    variables["PYPISERVER_NG_PORT"] = server.url.rpartition(":")[2]
    assert check_health({**environment, **variables}) == 0
    server.stop()
    assert check_health({**environment, **variables}) != 0


@needs_proc
@pytest.mark.parametrize(
    ("before", "after"),
    (
        (["/usr/local/bin/pypiserver-ng", "run"], ["-P", ".htpasswd", "packages"]),
        (["init", "--", "pypiserver-ng"], ["-v", "packages"]),
    ),
)
def test_health_check_finds_the_port_in_the_running_command(
    serve: Serve, environment: dict[str, str], before: list[str], after: list[str]
) -> None:
    """Flags of the server count as they do for the server, with an init before it or without."""
    server = serve(*OPEN, "--server-base-url", "/pypi", "--health-endpoint", "/alive")
    port = server.url.rpartition(":")[2].partition("/")[0]
    flags = [f"-p{port}", "--server-base-url", "/pypi"]
    alive = ["--health-endpoint", "/alive"]
    assert check_health(environment, *before, *flags, *alive, *after) == 0
    assert check_health(environment, *before, *flags, *after) != 0


@dataclass(frozen=True, slots=True)
class Image:
    """A built image and a container of it: `root` is its file system on this machine."""

    buildah: tuple[str, ...]
    container: str
    root: Path
    config: dict[str, Any]

    def run(self, *command: str) -> str:
        return run(*self.buildah, "run", "--isolation", "chroot", self.container, "--", *command)

    @contextmanager
    def start(self, *arguments: str, port: int) -> Iterator[Server]:
        """The entry point with the image's user, directory and environment, as a child of this process."""
        variables = [*self.config["Env"], f"PYPISERVER_PORT={port}"]
        command = [*self.config["Entrypoint"], *(arguments or self.config["Cmd"])]
        enter = ["chroot", f"--userspec={self.config['User']}", str(self.root)]
        inside = ["env", "-i", "-C", self.config["WorkingDir"], *variables, *command]
        process = subprocess.Popen([*enter, *inside], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        server = Server(process)
        try:
            server.wait_until_ready()
            yield server
        finally:
            server.kill()


def run(*command: str | Path) -> str:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, f"{command!r}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout.strip()


@pytest.fixture
def image(tmp_path: Path) -> Iterator[Image]:
    """The image, built from this tree on the base that TEST_BASE_ROOTFS names."""
    base = os.environ.get("TEST_BASE_ROOTFS")
    if shutil.which("buildah") is None or os.geteuid() != 0:
        pytest.skip("building the image needs buildah and root")
    if base is None:
        pytest.skip("TEST_BASE_ROOTFS names no root file system of a base image")
    store = tmp_path / "store"
    buildah = ("buildah", "--storage-driver", "vfs", "--root", str(store / "root"), "--runroot", str(store / "run"))
    try:
        scratch = run(*buildah, "from", "scratch")
        run(*buildah, "add", "--quiet", scratch, base, "/")
        run(*buildah, "commit", "--quiet", "--rm", scratch, "localhost/base")
        run(*buildah, "build", "--isolation", "chroot", "--format", "docker", *build_options(), "-t", "image", ROOT)
        container = run(*buildah, "from", "localhost/image")
        root = Path(run(*buildah, "mount", container))
        inspected = json.loads(run(*buildah, "inspect", "--type", "image", "localhost/image"))
        yield Image(buildah, container, root, inspected["Docker"]["config"])
    finally:
        subprocess.run([*buildah, "umount", "--all"], capture_output=True, check=False)
        shutil.rmtree(store, ignore_errors=True)


def build_options() -> list[str]:
    """Base, and the machine's own index and certificates where it names any."""
    options = ["--build-arg", "BASE_IMAGE=localhost/base"]
    if index := os.environ.get("PIP_INDEX_URL"):
        options += ["--build-arg", f"PIP_INDEX_URL={index}"]
    if authorities := os.environ.get("PIP_CERT"):
        options += ["--secret", f"id=pip_cert,src={authorities}", "--build-arg", "PIP_CERT=/run/secrets/pip_cert"]
    return options


@pytest.mark.clients
@pytest.mark.timeout(1800)
def test_built_image_serves_uploads_and_stops(
    image: Image, client: Callable[[str], Client], passwords: Path, tmp_path: Path, free_port: int
) -> None:
    """A real build: version, upload by twine as uid 9898, health check, exit status 0 on SIGTERM."""
    program = image.config["Entrypoint"][0]
    assert re.fullmatch(r"\d+\.\d+\S*", image.run(program, "--version"))
    assert f"uid={UID}(pypiserver) gid={UID}(pypiserver)" in image.run("id")
    assert "PIP_" not in json.dumps(image.config)
    shutil.copy(passwords, image.root / "data" / ".htpasswd")

    with image.start("run", "-P", ".htpasswd", "--disable-fallback", "packages", port=free_port) as server:
        wheel = make_wheel(tmp_path / "dist", "acme-core", "1.0")
        address = ("--repository-url", f"{server.url}/", "-u", "alice", "-p", "wonder")
        client("twine").run("upload", *address, wheel)
        image.run("env", f"PYPISERVER_PORT={free_port}", *health_command())
        published = (image.root / "data/packages" / wheel.name).stat()
        assert (published.st_uid, published.st_gid) == (UID, UID)
        assert server.stop() == 0


@pytest.fixture
def free_port() -> int:
    """A port of loopback that nobody listens on just now."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port

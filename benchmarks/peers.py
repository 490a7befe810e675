"""The contestants: ours, nginx, and every peer fed with the same files by its own way. Each is held to one processor.

The settings are those that each one's documentation gives for serving; what is not the default is named in `SETTINGS`.
"""

import base64
import getpass
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from string import Template

from benchmarks.corpus import encode_upload
from benchmarks.environments import find_program, provide_peer
from benchmarks.load import Answer, Connection, LoadFailedError, ask, write_request
from benchmarks.machine import ROOT
from benchmarks.processes import Contestant, find_free_port, running, server_cpus
from tests.tools.distributions import Distribution

JSON = {"Accept": "application/vnd.pypi.simple.v1+json"}
_OPEN = ("-P", ".", "-a", ".")

#: What each ran with, for the page of figures.
SETTINGS = {
    "ours": "`pypiserver-ng run -P . -a . --disable-fallback`, one process, defaults otherwise",
    "nginx": "`benchmarks/nginx.conf`: the bytes and headers that ours sends, from a file",
    "pypiserver": "`pypi-server run -P . -a . --disable-fallback`, with its cache; HTML, it has no JSON",
    "devpi": "`devpi-server --offline-mode`, one index without bases",
    "proxpi": "`gunicorn --threads 2 proxpi.server:app`, over ours as the index it caches",
    "pypiron": "`pypiron serve --advisory-feed ''`, files uploaded",
}


@contextmanager
def ours(
    packages: Path, state: Path, *options: str, name: str = "ours", cpus: set[int] | None = None, path: str = "/"
) -> Iterator[Contestant]:
    """Our program with what it keeps in `state`."""
    port = find_free_port()
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "pypiserver_ng",
        "run",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    command += ["--disable-fallback", "--state-dir", str(state), *(options or _OPEN), str(packages)]
    state.mkdir(parents=True, exist_ok=True)
    env = {"PYTHONPATH": str(ROOT)}
    with running(name, command, state.with_suffix(".log"), port, cpus=cpus or server_cpus(), env=env) as contestant:
        yield replace(contestant, path=path, headers=JSON)


@contextmanager
def nginx(
    home: Path, root: Path, *, kind: str, path: str, extra: str = "", name: str = "nginx"
) -> Iterator[Contestant]:
    """The files in `root` by nginx, sent as `kind`; `extra` are more lines for its server."""
    home.mkdir(parents=True, exist_ok=True)
    port = find_free_port()
    user = f"user {getpass.getuser()};" if os.geteuid() == 0 else ""
    values = {"home": home, "port": port, "root": root, "type": kind, "extra": extra, "user": user}
    configuration = home / "nginx.conf"
    configuration.write_text(Template((ROOT / "benchmarks" / "nginx.conf").read_text()).safe_substitute(values))
    command: list[str | Path] = [find_program("nginx") or "nginx", "-c", configuration, "-p", home]
    with running(name, command, home / "output.log", port, cpus=server_cpus()) as contestant:
        yield replace(contestant, path=path, headers=JSON)


@contextmanager
def nginx_beside(home: Path, answer: Answer, *, extra: str = "") -> Iterator[Contestant]:
    """What somebody else answered, sent by nginx from a file, with the headers that it does not send itself."""
    root = home / "www"
    root.mkdir(parents=True, exist_ok=True)
    encoding = answer.headers.get("content-encoding")
    if encoding == "gzip":
        (root / "page.gz").write_bytes(answer.body)
        extra += "gzip_static always; "
    else:
        (root / "page").write_bytes(answer.body)
    own = {"version", "date", "server", "content-type", "content-length", "etag", "connection", "content-encoding"}
    # nginx brings Server, Last-Modified and Accept-Ranges of its own.
    extra += "".join(f'add_header {name} "{value}"; ' for name, value in answer.headers.items() if name not in own)
    with nginx(home, root, kind=answer.headers["content-type"], path="/page", extra=extra) as contestant:
        yield contestant


@contextmanager
def pypiserver(home: Path, packages: Path, path: str) -> Iterator[Contestant]:
    port = find_free_port()
    program = provide_peer("pypiserver", home) / "pypi-server"
    command: list[str | Path] = [
        program,
        "run",
        "-i",
        "127.0.0.1",
        "-p",
        str(port),
        *_OPEN,
        "--disable-fallback",
        packages,
    ]
    with running("pypiserver", command, home / "data" / "pypiserver.log", port, cpus=server_cpus()) as contestant:
        yield replace(contestant, path=path)


@contextmanager
def devpi(home: Path, distributions: list[Distribution], project: str) -> Iterator[Contestant]:
    port, programs, data = find_free_port(), provide_peer("devpi-server", home), empty(home / "data" / "devpi")
    init: list[str | Path] = [programs / "devpi-init", "--serverdir", data / "server", "--no-root-pypi"]
    subprocess.run(init, check=True, capture_output=True)
    command: list[str | Path] = [
        programs / "devpi-server",
        "--serverdir",
        data / "server",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    with running("devpi", [*command, "--offline-mode"], data / "devpi.log", port, cpus=server_cpus()) as contestant:
        login = {"user": "root", "password": ""}
        token = json.loads(_send_json(contestant, "POST", "/+login", login).body)["result"]["password"]
        credentials = {"X-Devpi-Auth": base64.b64encode(f"root:{token}".encode()).decode()}
        _send_json(contestant, "PUT", "/root/bench", {"bases": [], "volatile": False}, credentials)
        for distribution in distributions:
            upload(contestant, distribution, "/root/bench/", credentials)
        yield replace(contestant, path=f"/root/bench/+simple/{project}/", headers=JSON)


@contextmanager
def proxpi(home: Path, upstream: Contestant, project: str) -> Iterator[Contestant]:
    port, programs = find_free_port(), provide_peer("proxpi", home)
    command: list[str | Path] = [programs / "python", "-m", "gunicorn", "--no-control-socket", "--threads", "2"]
    command += ["--bind", f"127.0.0.1:{port}", "proxpi.server:app"]
    env = {"PROXPI_INDEX_URL": f"http://127.0.0.1:{upstream.port}/simple/"}
    log = home / "data" / "proxpi.log"
    with running("proxpi", command, log, port, cpus=server_cpus(), env=env) as contestant:
        yield replace(contestant, path=f"/index/{project}/", headers=JSON)


@contextmanager
def pypiron(home: Path, distributions: list[Distribution], project: str) -> Iterator[Contestant]:
    port, program, data = find_free_port(), provide_peer("pypiron", home) / "pypiron", empty(home / "data" / "pypiron")
    command: list[str | Path] = [program, "serve", "--data-dir", data / "packages", "--bind-addr", f"127.0.0.1:{port}"]
    command += [
        "--uploader-user",
        "bench",
        "--uploader-pass",
        "bench-password",
        "--advisory-feed",
        "",
        "--wait-on-upload",
    ]
    with running("pypiron", command, data / "pypiron.log", port, cpus=server_cpus()) as contestant:
        for distribution in distributions:
            upload(contestant, distribution, "/", basic("bench", "bench-password"))
        yield replace(contestant, path=f"/simple/{project}/", headers=JSON)


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}


def write_upload(
    distribution: Distribution, path: str = "/", headers: Mapping[str, str] | None = None
) -> tuple[bytes, bytes]:
    """The head and the body of a whole request."""
    kind, body = encode_upload(distribution)
    fields = {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}
    return write_request(path, fields, "POST"), body


def upload(
    contestant: Contestant, distribution: Distribution, path: str = "/", headers: Mapping[str, str] | None = None
) -> None:
    connection = Connection(contestant.port)
    answer = connection.ask(*write_upload(distribution, path, headers))
    connection.close()
    if answer.status != 200:
        raise LoadFailedError(
            f"{contestant.name} refused {distribution.filename}: {answer.status} {answer.body[:300]!r}"
        )


def expect_page(contestant: Contestant, filenames: list[str]) -> Answer:
    """The contestant's page, which must name every file: what is not the same work is not compared."""
    answer = ask(contestant)
    missing = [filename for filename in filenames if filename.encode() not in answer.body]
    if answer.status != 200 or missing:
        raise LoadFailedError(f"{contestant.url} answered {answer.status} without {missing[:3]}")
    return answer


def _send_json(
    contestant: Contestant, method: str, path: str, content: object, headers: Mapping[str, str] | None = None
) -> Answer:
    body = json.dumps(content).encode()
    fields = {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}
    connection = Connection(contestant.port)
    answer = connection.ask(write_request(path, fields, method), body)
    connection.close()
    if answer.status != 200:
        raise LoadFailedError(f"{contestant.name} answered {answer.status} {answer.body[:300]!r}")
    return answer


def empty(directory: Path) -> Path:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    return directory

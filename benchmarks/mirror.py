"""What the caching upstream costs: a cached page beside a local one, a cold page of 11,000 files, memory at rest.

Run as ``python -m benchmarks.mirror`` from the clone, with wrk on PATH. Prints one line a figure; compares nothing with
a fixed limit.
"""

import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from tests.tools.distributions import build_wheel
from tests.tools.server import OPEN, Server, running_server

_JSON = "application/vnd.pypi.simple.v1+json"
_FILES = 11_000
_PROJECTS = 2_000
_SECONDS = 5


def page_of(name: str, files: int) -> bytes:
    entries = [
        {
            "filename": f"{name}-1.{number}-cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
            "url": f"/files/{number:064x}/{name}-1.{number}-cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
            "hashes": {"sha256": f"{number:064x}"},
            "requires-python": ">=3.9",
            "size": 1_000_000 + number,
            "upload-time": f"2025-01-{1 + number % 28:02d}T00:00:00.000000Z",
            "core-metadata": {"sha256": f"{number:064x}"},
            "yanked": False,
        }
        for number in range(files)
    ]
    versions = [f"1.{number}" for number in range(files)]
    return json.dumps({"meta": {"api-version": "1.4"}, "name": name, "versions": versions, "files": entries}).encode()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server: Upstream = self.server  # type: ignore[assignment]
        name = self.path.split("/")[2]
        server.asked.append(name)
        body = server.large if name == "large" else page_of(name, 5)
        self.send_response(200)
        self.send_header("Content-Type", _JSON)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the standard library's name
        """Stay quiet."""


class Upstream(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.large = page_of("large", _FILES)
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/simple/"


@contextmanager
def running_upstream() -> Iterator[Upstream]:
    with Upstream() as upstream:
        threading.Thread(target=upstream.serve_forever, daemon=True).start()
        yield upstream
        upstream.shutdown()


def cpu_seconds(server: Server) -> float:
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(server: Server) -> float:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    match = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert match is not None
    return int(match[1]) / 1024


def ask(server: Server, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
    connection.request("GET", path, headers={"Accept": _JSON})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content


def requests_per_second(server: Server, path: str) -> float:
    command = ["wrk", "-t1", "-c32", f"-d{_SECONDS}s", "-H", f"Accept: {_JSON}", f"{server.url}{path}"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    match = re.search(r"Requests/sec:\s+([\d.]+)", output)
    assert match is not None
    assert "Non-2xx" not in output
    return float(match[1])


class Bystander(threading.Thread):
    """Asks for a small page all the time, and remembers the longest wait in seconds."""

    def __init__(self, server: Server, path: str) -> None:
        super().__init__(daemon=True)
        self._netloc = urlsplit(server.url).netloc
        self._path = path
        self.waits: list[float] = []
        self.is_over = False

    def run(self) -> None:
        connection = http.client.HTTPConnection(self._netloc, timeout=60)
        while not self.is_over:
            start = time.perf_counter()
            connection.request("GET", self._path, headers={"Accept": _JSON})
            connection.getresponse().read()
            self.waits.append(time.perf_counter() - start)


def measure_cold_page(server: Server) -> None:
    bystander = Bystander(server, "/simple/local/")
    bystander.start()
    time.sleep(1)
    quiet = sorted(bystander.waits)
    bystander.waits.clear()
    before, start = cpu_seconds(server), time.perf_counter()
    status, content = ask(server, "/simple/large/")
    assert status == 200
    wall = time.perf_counter() - start
    waits = sorted(bystander.waits)
    # What others cost meanwhile is in the figure too.
    print(f"cold page of {_FILES} files: {wall:.2f} s, {cpu_seconds(server) - before:.2f} s CPU, {len(content)} bytes")
    bystander.is_over = True
    bystander.join()
    print(f"others meanwhile: longest wait {waits[-1] * 1000:.0f} ms; before: {quiet[-1] * 1000:.0f} ms")


def measure_flights(server: Server, upstream: Upstream) -> None:
    threads = [threading.Thread(target=ask, args=(server, "/simple/crowded/")) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"50 cold requests for one page: {upstream.asked.count('crowded')} request upstream")


def main() -> None:
    if shutil.which("wrk") is None:
        sys.exit("wrk is not here: apt-get install wrk")
    with tempfile.TemporaryDirectory() as home, running_upstream() as upstream:
        packages = Path(home) / "packages"
        for number in range(5):
            build_wheel("local", f"1.{number}").write(packages)
        options = (*OPEN, "--fallback-mode", "cache", "--fallback-url", upstream.url)
        with running_server(*options, packages=packages, cwd=Path(home), env=dict(os.environ)) as server:
            ask(server, "/simple/local/")
            ask(server, "/simple/small/")
            for _ in range(2):
                local = requests_per_second(server, "/simple/local/")
                cached = requests_per_second(server, "/simple/small/")
                print(f"pages/s: local {local:.0f}, cached {cached:.0f}, ratio {cached / local:.2f}")
            measure_flights(server, upstream)
            measure_cold_page(server)
            for number in range(_PROJECTS):
                ask(server, f"/simple/project-{number}/")
            print(f"resident with {_PROJECTS} projects asked for: {resident_mib(server):.0f} MiB")
        with running_server(*options, packages=packages, cwd=Path(home), env=dict(os.environ)) as server:
            ask(server, "/simple/small/")
            time.sleep(3)
            print(f"resident at rest after a restart with that cache: {resident_mib(server):.0f} MiB")


if __name__ == "__main__":
    main()

"""The clients: wrk for pages, and small ones of our own for bytes, on their own processor. They know no server."""

import hashlib
import os
import re
import resource
import selectors
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.processes import Contestant, load_cpus

CONNECTIONS = 32
_BUFFER = 2**20
_REQUESTS = re.compile(r"Requests/sec:\s+([\d.]+)")
_FAILURES = re.compile(r"Non-2xx or 3xx responses: (\d+)")
_TIMEOUT = 120


class LoadFailedError(Exception):
    """Answers were wrong, so their number says nothing."""


@dataclass(frozen=True, slots=True)
class Speed:
    """How much was done by the clock, and by the processor seconds that the server used for it."""

    per_second: float
    per_cpu_second: float


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


def parse_wrk(output: str) -> float:
    """Requests per second; raises LoadFailedError where answers were failures, or there were none."""
    rate, failures = _REQUESTS.search(output), _FAILURES.search(output)
    if rate is None or not float(rate[1]):
        raise LoadFailedError(f"wrk got no answers:\n{output}")
    if failures is not None:
        raise LoadFailedError(f"{failures[1]} answers were failures:\n{output}")
    return float(rate[1])


def measure_requests(contestant: Contestant, seconds: float, connections: int = CONNECTIONS) -> Speed:
    headers = [part for name, value in contestant.headers.items() for part in ("-H", f"{name}: {value}")]
    cpus = ",".join(map(str, sorted(load_cpus())))
    command = ["taskset", "-c", cpus, "wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", *headers, contestant.url]
    before = contestant.cpu_seconds()
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    try:
        rate = parse_wrk(output)
    except LoadFailedError as fault:
        raise LoadFailedError(f"{contestant.name}: {fault}") from None
    return Speed(rate, rate * seconds / max(contestant.cpu_seconds() - before, 0.01))


@contextmanager
def held_to_load_cpus() -> Iterator[None]:
    """Where the clients in this process run."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, load_cpus())
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Connection:
    """One connection, opened anew where the server closes it. As little of HTTP as the servers here speak."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: socket.socket | None = None
        self._buffer = bytearray(_BUFFER)

    def ask(self, *parts: bytes, keep: bool = True) -> Answer:
        """Send a whole request and take its answer; the body is kept or thrown away."""
        connection = self._socket or socket.create_connection(("127.0.0.1", self._port), timeout=_TIMEOUT)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connection
        for part in parts:
            connection.sendall(part)
        status, headers, body = self._read_head(connection)
        length = 0 if status == 304 else int(headers.get("content-length", -1))
        body = self._read_body(connection, body, length, keep=keep)
        if length < 0 or headers.get("connection", "").lower() == "close" or headers["version"] == "HTTP/1.0":
            self.close()
        return Answer(status, headers, body)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _read_head(self, connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
        received = b""
        while b"\r\n\r\n" not in received:
            data = connection.recv(65536)
            if not data:
                raise LoadFailedError(f"the connection ended within an answer's head: {received!r}")
            received += data
        head, _, body = received.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        version, status = first.split(" ", 2)[:2]
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return int(status), fields | {"version": version}, body

    def _read_body(self, connection: socket.socket, body: bytes, length: int, *, keep: bool) -> bytes:
        kept, count = [body], len(body)
        while length < 0 or count < length:
            received = connection.recv_into(self._buffer)
            if not received:
                if length >= 0:
                    raise LoadFailedError(f"the connection ended after {count} of {length} bytes")
                break
            count += received
            if keep:
                kept.append(bytes(self._buffer[:received]))
        return b"".join(kept)


def write_request(path: str, headers: Mapping[str, str], method: str = "GET") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def ask(contestant: Contestant, path: str | None = None) -> Answer:
    """One request of its own connection."""
    connection = Connection(contestant.port)
    try:
        return connection.ask(write_request(path or contestant.path, contestant.headers))
    finally:
        connection.close()


def measure_download(contestant: Contestant, size: int, seconds: float) -> Speed:
    """Megabytes a second of one connection that asks for one large file again and again."""
    request = write_request(contestant.path, contestant.headers)
    connection = Connection(contestant.port)
    with held_to_load_cpus():
        before, start, count = contestant.cpu_seconds(), time.perf_counter(), 0
        while not count or time.perf_counter() - start < seconds:
            answer = connection.ask(request, keep=False)
            if answer.status != 200 or int(answer.headers["content-length"]) != size:
                raise LoadFailedError(f"{contestant.url} answered {answer.status} {answer.headers}")
            count += 1
        wall = time.perf_counter() - start
    connection.close()
    megabytes = count * size / 10**6
    return Speed(megabytes / wall, megabytes / max(contestant.cpu_seconds() - before, 0.01))


class _Download:
    """One of many that run at once."""

    def __init__(self, port: int, request: bytes) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT)
        self.socket.sendall(request)
        self._head = b""
        self._is_begun = False
        self._digest = hashlib.sha256()
        self._count = 0

    def take(self, size: int, sha256: str) -> bool:
        """Take what has come; returns whether that was the rest."""
        data = self.socket.recv(_BUFFER)
        if not data:
            raise LoadFailedError(f"a download ended after {self._count} of {size} bytes")
        if not self._is_begun:
            self._head, end, data = (self._head + data).partition(b"\r\n\r\n")
            self._is_begun = bool(end)
            if end and b" 200 " not in self._head[:20]:
                raise LoadFailedError(f"a download was answered {self._head[:300]!r}")
        self._digest.update(data)
        self._count += len(data)
        if self._count < size:
            return False
        if self._digest.hexdigest() != sha256:
            raise LoadFailedError("a download brought wrong bytes")
        return True


def download_together(contestant: Contestant, count: int, size: int, sha256: str) -> float:
    """So many downloads at once on so many connections, every byte checked; the seconds it took."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    request, start = write_request(contestant.path, contestant.headers), time.perf_counter()
    with held_to_load_cpus(), selectors.DefaultSelector() as ready:
        for _ in range(count):
            download = _Download(contestant.port, request)
            ready.register(download.socket, selectors.EVENT_READ, download)
        while ready.get_map():
            events = ready.select(_TIMEOUT)
            if not events:
                raise LoadFailedError(f"{len(ready.get_map())} of {count} downloads stand still")
            for key, _ in events:
                download = key.data
                if download.take(size, sha256):
                    ready.unregister(download.socket)
                    download.socket.close()
    return time.perf_counter() - start


def measure_uploads(contestant: Contestant, requests: Sequence[Sequence[bytes]], clients: int) -> Speed:
    """Uploads a second of so many clients, each with a connection of its own and every answer a 200."""
    waiting, lock, failures = list(requests), threading.Lock(), list[str]()

    def work() -> None:
        connection = Connection(contestant.port)
        while True:
            with lock:
                if not waiting or failures:
                    break
                request = waiting.pop()
            try:
                answer = connection.ask(*request)
            except (OSError, LoadFailedError) as fault:
                failures.append(str(fault))
                break
            if answer.status != 200:
                failures.append(f"{answer.status} {answer.body[:300]!r}")
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(clients)]
    with held_to_load_cpus():
        before, start = contestant.cpu_seconds(), time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wall = time.perf_counter() - start
    if failures:
        raise LoadFailedError(f"{contestant.name} refused an upload: {failures[0]}")
    return Speed(len(requests) / wall, len(requests) / max(contestant.cpu_seconds() - before, 0.01))

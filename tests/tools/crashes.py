"""A server that uploads keep busy until it dies, and what must be true of its disk afterwards.

Knows the upload form and the simple API; nothing of the program's insides but the name of its scratch directory.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from tests.tools.distributions import build_wheel
from tests.tools.server import OPEN, Server, start_server
from tests.tools.uploads import encode_upload

_EXT4_SHUTDOWN = 0x8004587D
_NO_LOG_FLUSH = 2
#: Replaces the interpreter's own flushing: what is not on the disk by chance is lost in a power cut.
NO_FSYNC = "import os\nos.fsync = os.fdatasync = lambda fd: None\n"


@dataclass(slots=True)
class Witness:
    """What clients were told: filename to sha256 of every upload that was answered 200."""

    acknowledged: dict[str, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _next: int = 0

    def keep_busy(self, url: str, stop: threading.Event, uploaders: int = 4) -> list[threading.Thread]:
        """Upload from several threads until told to stop or until the server is gone."""
        threads = [threading.Thread(target=self._upload, args=(url, stop)) for _ in range(uploaders)]
        for thread in threads:
            thread.start()
        return threads

    def _upload(self, url: str, stop: threading.Event) -> None:
        address = urlsplit(url).netloc
        connection = HTTPConnection(address, timeout=20)
        with contextlib.closing(connection), contextlib.suppress(OSError, HTTPException):
            while not stop.is_set():
                with self._lock:
                    self._next += 1
                    number = self._next
                built = build_wheel(f"p{number % 7}", f"1.{number}", description="text " * (number % 5 * 2000))
                body, content_type = encode_upload(built)
                connection.request("POST", "/", body, {"content-type": content_type})
                with connection.getresponse() as answer:
                    answer.read()
                if answer.status == 200:
                    with self._lock:
                        self.acknowledged[built.filename] = built.sha256

    def find_lies(self, url: str) -> list[str]:
        """Acknowledged files that are not listed, and listed files whose bytes are not those listed."""
        connection = HTTPConnection(urlsplit(url).netloc, timeout=30)
        listed: dict[str, str] = {}
        lies: list[str] = []
        for project in _get_json(connection, "/simple/")["projects"]:
            page = f"/simple/{project['name']}/"
            for file in _get_json(connection, page)["files"]:
                listed[file["filename"]] = file["hashes"]["sha256"]
                connection.request("GET", urljoin(page, file["url"]))
                content = connection.getresponse().read()
                if (hashlib.sha256(content).hexdigest(), len(content)) != (file["hashes"]["sha256"], file["size"]):
                    lies.append(f"{file['filename']}: other bytes than listed")
        connection.close()
        return lies + [name for name, sha256 in self.acknowledged.items() if listed.get(name) != sha256]


def _get_json(connection: HTTPConnection, path: str) -> Any:
    connection.request("GET", path, headers={"accept": "application/vnd.pypi.simple.v1+json"})
    answer = connection.getresponse()
    content = answer.read()
    assert answer.status == 200, (path, answer.status, content)
    return json.loads(content)


def start(packages: Path, environment: Mapping[str, str], *args: str) -> Server:
    return start_server(*OPEN, "--disable-fallback", *args, packages=packages, cwd=packages.parent, env=environment)


def kill_all(server: Server) -> None:
    """The supervisor and every worker, before any of them can notice."""
    everybody = list_processes(server.process.pid)
    for pid in everybody:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    server.kill()
    while any(_is_alive(pid) for pid in everybody):
        time.sleep(0.01)


def list_processes(pid: int) -> list[int]:
    """The process, its children and theirs."""
    children = [
        int(child) for task in Path(f"/proc/{pid}/task").glob("*/children") for child in task.read_text().split()
    ]
    return [pid, *(one for child in children for one in list_processes(child))]


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Disk:
    """An ext4 file system of 64 MB in a file, whose power can be cut."""

    def __init__(self, directory: Path) -> None:
        self.point = directory / "disk"
        self._image = directory / "image"
        self.point.mkdir()
        with self._image.open("wb") as image:
            image.truncate(64 << 20)
        _call("mkfs.ext4", "-q", "-F", self._image)

    def mount(self) -> None:
        """Raises CalledProcessError where nothing can be mounted."""
        _call("mount", "-o", "loop", self._image, self.point)

    def cut(self) -> None:
        """From now on nothing reaches the disk, and what had not reached it is gone."""
        fd = os.open(self.point, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, _EXT4_SHUTDOWN, _NO_LOG_FLUSH.to_bytes(4, "little"))
        finally:
            os.close(fd)

    def unmount(self) -> None:
        _call("umount", self.point)


def _call(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True)

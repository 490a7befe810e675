"""What a client asked of a running server, as the server's access log has it. The server must run with `-v`."""

import itertools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import httpx2

from tests.tools.server import Server

_LINE = re.compile(r'"(?P<method>[A-Z]+) (?P<path>\S+) HTTP/[0-9.]+" (?P<status>\d{3})')
_marks = itertools.count()


class Asked(NamedTuple):
    """One request; `path` as it came, with its query."""

    method: str
    path: str
    status: int

    @property
    def filename(self) -> str:
        """The distribution file that was asked for, else an empty text; a metadata file is none."""
        last = self.path.rpartition("/")[2]
        return last if last.endswith((".whl", ".tar.gz", ".zip")) else ""


@contextmanager
def noting(server: Server) -> Iterator[list[Asked]]:
    """The requests of the block in the order in which they were answered; the list is filled at its end."""
    requests: list[Asked] = []
    begin = _mark(server)
    yield requests
    end = _mark(server)
    lines = server.log[begin:end].splitlines()[1:-1]
    found = [match for line in lines if (match := _LINE.search(line))]
    requests += [Asked(match["method"], match["path"], int(match["status"])) for match in found]


def _mark(server: Server) -> int:
    """Ask something of its own; its place in the log comes after everything that was answered before."""
    mark = f"/health?mark={next(_marks)} "
    httpx2.get(server.url + mark.strip(), trust_env=False)
    server.wait_for_log(re.escape(mark))
    return server.log.index(mark)

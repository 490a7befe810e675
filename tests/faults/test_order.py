"""The order in which an upload and a deletion reach the disk, as the kernel saw it.

A power cut alone does not prove it: some file systems flush more than they were asked to.
"""

import itertools
import re
import shutil
from pathlib import Path

import pytest

from tests.faults.answers import list_files, traced
from tests.tools.distributions import build_wheel
from tests.tools.server import OPEN, Serve
from tests.tools.uploads import remove, upload

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is missing")

CALLS = "write,pwrite64,writev,fsync,fdatasync,link,linkat,rename,renameat,renameat2,unlink,unlinkat,sendto,sendmsg"
_LINE = re.compile(r"^(?P<pid>\d+) +(?P<rest>.*)$")
_RESUMED = re.compile(r"^<\.\.\. \w+ resumed>")


class Trace:
    """System calls; each has the numbers of the lines where it began and where it had returned."""

    def __init__(self, path: Path) -> None:
        self._calls: list[tuple[int, int, str]] = []
        unfinished: dict[str, tuple[int, str]] = {}
        for number, line in enumerate(path.read_text(errors="backslashreplace").splitlines()):
            match = _LINE.match(line)
            assert match, line
            pid, rest = match["pid"], match["rest"]
            if rest.endswith("<unfinished ...>"):
                unfinished[pid] = number, rest.removesuffix("<unfinished ...>").rstrip()
            elif _RESUMED.match(rest):
                began, text = unfinished.pop(pid)
                self._calls.append((began, number, text + _RESUMED.sub("", rest)))
            else:
                self._calls.append((number, number, rest))
        self._calls.sort()

    def find(self, pattern: str) -> list[tuple[int, int]]:
        """When calls began and had returned whose text (name, arguments, result) matches; there must be one."""
        found = [(began, ended) for began, ended, text in self._calls if re.search(pattern, text)]
        assert found, f"no {pattern} in\n" + "\n".join(text for _, _, text in self._calls)
        return found


def expect_order(trace: Trace, *patterns: str) -> None:
    """The last call of each has returned before the first of the next began."""
    for first, second in itertools.pairwise(patterns):
        ended = max(ended for _, ended in trace.find(first))
        began = min(began for began, _ in trace.find(second))
        assert ended < began, f"{second} began before {first} had ended"


def options(path: Path) -> tuple[str, ...]:
    return ("-y", "-s", "40", "-e", f"trace={CALLS}", "-o", str(path))


@pytest.mark.parametrize("overwrite", (False, True), ids=["new", "replaced"])
def test_upload(packages: Path, tmp_path: Path, serve: Serve, overwrite: bool) -> None:
    """Bytes, their flush, the name, its flush, the row, its flush, and only then the answer."""
    server = serve(*OPEN, "--disable-fallback", *(["--overwrite"] if overwrite else []))
    assert upload(server.url, build_wheel("demo", "1.0", description="old")).status_code == 200
    # Pages of the metadata store and threads are there then: one upload is traced, no start.
    built = build_wheel("demo", "1.0" if overwrite else "2.0", extra_files={"demo/more": b"x" * 300_000})
    with traced(server.process.pid, *options(tmp_path / "trace")):
        assert upload(server.url, built).status_code == 200
    trace = Trace(tmp_path / "trace")
    final, scratch = re.escape(str(packages / built.filename)), r"/scratch/[0-9a-f]{32}"
    catalog = re.escape(str(packages / ".pypiserver-ng" / "catalog.sqlite"))
    expect_order(
        trace,
        rf"^write\(\d+<.*{scratch}>",
        rf"^fsync\(\d+<.*{scratch}>\) += 0",
        rf'^(rename|link)\w*\(.*{scratch}".*"{final}".*= 0',
        rf"^fsync\(\d+<{re.escape(str(packages))}>\) += 0",
        rf"^pwrite64\(\d+<{catalog}>",
        rf"^(fsync|fdatasync)\(\d+<{catalog}>\) += 0",
        r'"HTTP/1\.1 200',
    )
    assert built.sha256 in {file.sha256 for file in list_files(server.url, "demo")}


def test_deletion(packages: Path, tmp_path: Path, serve: Serve) -> None:
    """The name is buried first, then the file goes, durably, and only then the answer is given."""
    server = serve(*OPEN, "--disable-fallback")
    built = build_wheel("demo", "1.0")
    assert upload(server.url, built).status_code == 200
    with traced(server.process.pid, *options(tmp_path / "trace")):
        assert remove(server.url, name="demo", version="1.0").status_code == 200
    trace = Trace(tmp_path / "trace")
    catalog = re.escape(str(packages / ".pypiserver-ng" / "catalog.sqlite"))
    gone = rf'^unlink\w*\(.*"{re.escape(str(packages / built.filename))}".*= 0'
    commits = trace.find(rf"^(fsync|fdatasync)\(\d+<{catalog}>\) += 0")
    ((began, _),) = trace.find(gone)
    assert min(ended for _, ended in commits) < began
    journal = trace.find(rf"^fsync\(\d+<{re.escape(str(packages / '.pypiserver-ng' / 'journal.jsonl'))}>\) += 0")
    assert min(ended for _, ended in journal) < began
    expect_order(trace, gone, rf"^fsync\(\d+<{re.escape(str(packages))}>\) += 0", r'"HTTP/1\.1 200')

"""While files come, go and move and the server is stopped and killed, every page tells the truth in every worker.

A file is listed only when whole, with its own sha256 and size; what was acknowledged is in the next answer of all.
"""

import hashlib
import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path

import httpx2
import pytest

from tests.faults.answers import Panel, ask_on, find_false_links, list_files, list_projects, parse_json
from tests.tools.crashes import kill_all, start
from tests.tools.distributions import Distribution, build_wheel
from tests.tools.program import Program
from tests.tools.server import Server
from tests.tools.uploads import remove, upload

LONG = bool(os.environ.get("TEST_LONG"))
#: Lives of the server, seconds of each, and checks of acknowledged changes that there must be at least.
LIVES, SECONDS, CHECKS = (20, 15.0, 5000) if LONG else (3, 3.0, 60)

_LOST = (OSError, HTTPException, httpx2.HTTPError)


@dataclass(slots=True)
class Knowledge:
    """What clients and the owner were told, whoever serves now. Every filename is used once."""

    #: Filename to sha256; the file must be listed.
    here: dict[str, str] = field(default_factory=dict)
    #: Filenames that must not be listed.
    gone: set[str] = field(default_factory=set)
    #: Filenames of yanked releases, with their reasons.
    yanked: dict[str, str] = field(default_factory=dict)
    #: Answers that were compared with what was acknowledged just before, and those that did not know it.
    checks: int = 0
    stale: list[str] = field(default_factory=list)
    #: Files that were downloaded, and those that were not what their page said.
    downloads: int = 0
    wrong: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    _last: int = 0

    def next(self) -> int:
        with self.lock:
            self._last += 1
            return self._last


class Life:
    """One life of a server, and everybody who is at work on it."""

    def __init__(self, server: Server, known: Knowledge, program: Program, packages: Path) -> None:
        self.server = server
        self.known = known
        self.program = program
        self.packages = packages
        self.is_ending = False
        self.faults: list[str] = []

    def run(self, seconds: float, end: Callable[[], object]) -> None:
        """Everybody works for so long and is interrupted by `end`."""
        # Two upload: one of them for those who delete.
        works = (self.upload, self.upload, self.remove, self.yank, self.delete_by_command, self.move, self.read)
        threads = [threading.Thread(target=self._repeat, args=(work,)) for work in works]
        for thread in threads:
            thread.start()
        time.sleep(seconds)
        self.is_ending = True
        end()
        for thread in threads:
            thread.join(90)
        assert not self.faults, "\n".join([*self.faults, self.server.describe()])

    def _repeat(self, work: Callable[[Panel], None]) -> None:
        panel: Panel | None = None
        try:
            panel = Panel(self.server)
            while not self.is_ending:
                work(panel)
        except _LOST as fault:
            if not self.is_ending:
                self.faults.append(f"{work.__name__}: {fault!r}")
        except Exception as fault:
            self.faults.append(f"{work.__name__}: {fault!r}")
        finally:
            if panel is not None:
                panel.close()

    def expect(self, panel: Panel, name: str, what: str, condition: Callable[[dict[str, str | None]], bool]) -> None:
        """Every worker's next page of the project must fulfil the condition on filename to yanked reason."""
        page = f"/simple/{name}/"
        for answer in panel.ask_all(page):
            files = parse_json(page, answer.content) if answer.status == 200 else ()
            listed = {file.filename: file.yanked for file in files}
            self.known.checks += 1
            # Without a file left there is no such project.
            if answer.status not in {200, 404} or not condition(listed):
                self.known.stale.append(f"{what}: {answer.status} {sorted(listed.items())}")

    # Who is at work

    def add(self, panel: Panel, name: str) -> Distribution:
        number = self.known.next()
        built = build_wheel(name, f"1.{number}", description="text " * (number % 5 * 5000))
        answer = upload(self.server.url, built)
        assert answer.status_code == 200, answer.text
        self.known.here[built.filename] = built.sha256
        self.expect(panel, name, f"{built.filename} was uploaded", lambda listed: built.filename in listed)
        return built

    def upload(self, panel: Panel) -> None:
        self.add(panel, f"up{random.randrange(3)}")

    def remove(self, panel: Panel) -> None:
        built = self.add(panel, "going")
        self._forget(built)
        assert remove(self.server.url, name="going", version=_version(built)).status_code == 200
        self._expect_gone(panel, "going", built)

    def delete_by_command(self, panel: Panel) -> None:
        built = self.add(panel, "doomed")
        self._forget(built)
        done = self.program.run("delete", "doomed", _version(built))
        if done.returncode == 0:
            self._expect_gone(panel, "doomed", built)
        else:
            assert self.is_ending, done.stderr

    def _forget(self, built: Distribution) -> None:
        # Between the request and its answer both may be.
        del self.known.here[built.filename]

    def _expect_gone(self, panel: Panel, name: str, built: Distribution) -> None:
        self.known.gone.add(built.filename)
        self.expect(panel, name, f"{built.filename} was deleted", lambda listed: built.filename not in listed)

    def yank(self, panel: Panel) -> None:
        built = self.add(panel, "yanked")
        reason = f"broken {self.known.next()}"
        done = self.program.run("yank", "yanked", _version(built), "--reason", reason)
        if done.returncode == 0:
            self.known.yanked[built.filename] = reason
            self.expect(panel, "yanked", "a yank", lambda listed: listed.get(built.filename) == reason)
        else:
            assert self.is_ending, done.stderr

    def move(self, panel: Panel) -> None:
        """The owner's hands: copy a file in, move it, sometimes remove it; no client is told of any."""
        number = self.known.next()
        built = build_wheel("byhand", f"1.{number}")
        other = self.packages / f"shelf{number % 3}"
        other.mkdir(exist_ok=True)
        path = self.packages / built.filename
        with path.open("wb") as stream:
            # Slowly, so that a page may be asked for in between.
            for start in range(0, len(built.content), 400):
                stream.write(built.content[start : start + 400])
                stream.flush()
                time.sleep(0.005)
        time.sleep(random.uniform(0, 0.4))
        path = path.rename(other / built.filename)
        if number % 3 == 0:
            time.sleep(random.uniform(0, 0.4))
            path.unlink()
            self.known.gone.add(built.filename)
        else:
            self.known.here[built.filename] = built.sha256

    def read(self, panel: Panel) -> None:
        """What is listed is there and is what the page says, or no longer on the page that follows."""
        connection = random.choice(list(panel.connections.values()))
        name = random.choice(("up0", "up1", "up2", "going", "doomed", "yanked", "byhand"))
        page = f"/simple/{name}/"
        answer = ask_on(connection, page)
        if answer.status != 200:
            return
        sizes = {file["filename"]: file["size"] for file in answer.json()["files"]}
        for file in parse_json(page, answer.content):
            got = ask_on(connection, file.path)
            self.known.downloads += 1
            if got.status == 200:
                if (hashlib.sha256(got.content).hexdigest(), len(got.content)) != (file.sha256, sizes[file.filename]):
                    self.known.wrong.append(f"{file.path} has other bytes than listed")
                continue
            again = ask_on(connection, page)
            if again.status == 200 and file in parse_json(page, again.content):
                self.known.wrong.append(f"{file.path} is listed and answers {got.status}: {got.content!r}")


def _version(built: Distribution) -> str:
    return built.filename.split("-")[1]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("workers", (1, 4), ids=["one", "four"])
def test_pages_are_true(packages: Path, tmp_path: Path, environment: dict[str, str], workers: int) -> None:
    """Uploads, deletions, yanks, copies and moves, SIGTERM and SIGKILL; nothing stale, nothing false, nothing lost."""
    known = Knowledge()
    for life in range(LIVES):
        server = start(packages, environment, "--workers", str(workers))
        try:
            end = server.stop if life % 2 == 0 else lambda server=server: kill_all(server)
            Life(server, known, Program(tmp_path, environment), packages).run(SECONDS, end)
        finally:
            kill_all(server)
        assert known.stale == []
        assert known.wrong == []
        assert "Traceback" not in server.log, server.log
    server = start(packages, environment, "--workers", str(workers))
    try:
        assert find_untruths(server.url, known) == []
        assert find_false_links(server.url) == []
    finally:
        server.stop()
    # It may have been killed in the middle of a file, never of a scratch file that stays.
    assert list((packages / ".pypiserver-ng" / "scratch").iterdir()) == []
    assert known.checks >= CHECKS
    print(f"{known.checks} answers after a change, 0 stale; {known.downloads} downloads, 0 wrong")


def find_untruths(url: str, known: Knowledge) -> list[str]:
    """Acknowledged changes that the server does not know."""
    listed = {file.filename: file for name in list_projects(url) for file in list_files(url, name)}
    told = {name: (sha256, known.yanked.get(name)) for name, sha256 in known.here.items()}
    now = {name: (file.sha256, file.yanked) for name, file in listed.items()}
    lies = [f"{name} is {now.get(name)}, was told as {facts}" for name, facts in told.items() if now.get(name) != facts]
    return lies + [f"{name} is back" for name in known.gone if name in listed]


@pytest.mark.skipif(not LONG, reason="only with TEST_LONG")
@pytest.mark.timeout(1800)
def test_five_thousand_answers(packages: Path, environment: dict[str, str]) -> None:
    """Uploads in quick succession over one worker of four each time; not one of 5,000 next answers is stale."""
    server = start(packages, environment, "--workers", "4")
    panel = Panel(server)
    try:
        stale = 0
        for number in range(1, 1251):
            name = f"p{number % 10}"
            built = build_wheel(name, f"1.{number}")
            assert upload(server.url, built).status_code == 200
            page = f"/simple/{name}/"
            for answer in panel.ask_all(page):
                stale += built.filename not in {file.filename for file in parse_json(page, answer.content)}
        assert stale == 0
    finally:
        panel.close()
        server.stop()

"""What an index's owner does beside a running server: every surface shows it at once, and it outlives the server."""

import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.tools.distributions import build_wheel, make_sdist, make_wheel
from tests.tools.program import Program
from tests.tools.server import OPEN, Serve, Server, wait_until
from tests.tools.uploads import upload

JSON = {"accept": "application/vnd.pypi.simple.v1+json"}
CLOSED = (*OPEN, "--disable-fallback")


@pytest.fixture
def program(tmp_path: Path, packages: Path, environment: dict[str, str]) -> Program:
    """`demo` 1.0 as a wheel and an sdist, `demo` 2.0, and `other`."""
    make_wheel(packages, "demo", "1.0")
    make_sdist(packages, "demo", "1.0")
    make_wheel(packages, "demo", "2.0")
    make_wheel(packages, "other", "1.0")
    return Program(tmp_path, environment)


def act(program: Program, *args: str) -> str:
    done = program.run(*args)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout.strip()


def read_page(server: Server, name: str = "demo") -> Any:
    answer = httpx2.get(f"{server.simple}{name}/", headers=JSON)
    assert answer.status_code == 200, answer.text
    return answer.json()


def read_text(server: Server, path: str) -> str:
    return httpx2.get(server.url + path, headers={"accept": "text/html"}).text


def list_projects(server: Server) -> list[str]:
    return [project["name"] for project in httpx2.get(server.simple, headers=JSON).json()["projects"]]


def test_yank_and_unyank(serve: Serve, program: Program) -> None:
    """In JSON, HTML, the JSON API and on the project's page, in the next answer and after a restart."""
    server = serve(*CLOSED)
    assert not any(file["yanked"] for file in read_page(server)["files"])
    act(program, "yank", "Demo", "1", "--reason", 'broken <b>&"')
    for current in (server, serve(*CLOSED)):
        assert [file["yanked"] for file in read_page(current)["files"]] == ['broken <b>&"', 'broken <b>&"', False]
        assert read_text(current, "/simple/demo/").count('data-yanked="broken &lt;b&gt;&amp;&quot;"') == 2
        release = httpx2.get(f"{current.url}/pypi/demo/1.0/json").json()
        assert (release["info"]["yanked"], release["info"]["yanked_reason"]) == (True, 'broken <b>&"')
        assert [file["yanked"] for file in release["urls"]] == [True, True]
        assert "Yanked: broken &lt;b&gt;" in read_text(current, "/project/demo/1.0/")
    assert act(program, "unyank", "demo", "1.0") == "unyanked demo 1.0"
    assert act(program, "unyank", "demo", "1.0") == "demo 1.0 was not yanked"
    assert not any(file["yanked"] for file in read_page(server)["files"])


def test_a_yanked_release_is_not_the_newest(serve: Serve, program: Program) -> None:
    """Pages and the JSON API describe one that installers would choose; a project that is yanked whole stays local."""
    server = serve(*OPEN, "--fallback-url", "http://127.0.0.1:9/simple/")
    act(program, "yank", "demo", "2.0")
    assert httpx2.get(f"{server.url}/pypi/demo/json").json()["info"]["version"] == "1.0"
    act(program, "yank", "demo", "1.0")
    assert httpx2.get(f"{server.url}/pypi/demo/json").json()["info"]["version"] == "2.0"
    assert len(read_page(server)["files"]) == 3


def test_delete(serve: Serve, program: Program, packages: Path) -> None:
    """The files are gone from the directory and from every page; their names take no other bytes."""
    server = serve(*CLOSED)
    wheel = httpx2.get(f"{server.url}/packages/demo-1.0-py3-none-any.whl").content
    told = act(program, "delete", "demo", "1.0")
    assert sorted(told.split("\n")) == ["deleted demo-1.0-py3-none-any.whl", "deleted demo-1.0.tar.gz"]
    assert read_page(server)["versions"] == ["2.0"]
    assert httpx2.get(f"{server.url}/packages/demo-1.0.tar.gz").status_code == 404
    assert sorted(path.name for path in packages.glob("*.whl")) == [
        "demo-2.0-py3-none-any.whl",
        "other-1.0-py3-none-any.whl",
    ]
    refused = upload(server.url, build_wheel("demo", "1.0", description="other"))
    assert (refused.status_code, refused.text.startswith("File already exists")) == (409, True)
    assert upload(server.url, build_wheel("demo", "1.0")).status_code == 200
    assert httpx2.get(f"{server.url}/packages/demo-1.0-py3-none-any.whl").content == wheel


@pytest.mark.parametrize("marker", ("archived", "deprecated"))
def test_status(serve: Serve, program: Program, marker: str) -> None:
    """In every representation; only an archived project refuses uploads, and says what it is."""
    server = serve(*CLOSED)
    act(program, "status", "demo", marker, "--reason", "use <other>")
    page = read_page(server)
    assert page["project-status"] == {"status": marker, "reason": "use <other>"}
    assert len(page["files"]) == 3
    text = read_text(server, "/simple/demo/")
    assert f'<meta name="pypi:project-status" content="{marker}">' in text
    assert '<meta name="pypi:project-status-reason" content="use &lt;other&gt;">' in text
    assert f"demo is {marker} (use &lt;other&gt;)" in read_text(server, "/project/demo/")
    assert httpx2.get(f"{server.url}/pypi/demo/json").json()["project-status"]["status"] == marker
    same = upload(server.url, build_wheel("demo", "2.0"))
    answer = upload(server.url, build_wheel("demo", "3.0"))
    assert same.status_code == answer.status_code
    if marker == "archived":
        assert (answer.status_code, answer.text) == (403, "demo is archived (use <other>): it takes no uploads\n")
    else:
        assert answer.status_code == 200
    act(program, "status", "demo", "active")
    assert "project-status" not in read_page(server)
    assert upload(server.url, build_wheel("demo", "3.0")).status_code == 200


def test_quarantine(serve: Serve, program: Program) -> None:
    """200 without files, so that no client goes elsewhere; nothing of it is listed, found, described or served."""
    server = serve(*OPEN, "--fallback-url", "http://127.0.0.1:9/simple/")
    path = "/packages/demo-1.0-py3-none-any.whl"
    assert httpx2.get(server.url + path).status_code == 200
    assert list_projects(server) == ["demo", "other"]
    act(program, "status", "demo", "quarantined", "--reason", "malware")
    page = read_page(server)
    assert (page["files"], page["versions"]) == ([], [])
    assert page["project-status"] == {"status": "quarantined", "reason": "malware"}
    for target in (path, f"{path}.metadata"):
        refused = httpx2.get(server.url + target)
        assert (refused.status_code, "demo is quarantined (malware)" in refused.text) == (403, True)
    assert list_projects(server) == ["other"]
    assert httpx2.get(f"{server.url}/pypi/demo/json").status_code == 404
    assert "quarantined (malware)" in read_text(server, "/project/demo/")
    for target in ("/", "/-/search?q=demo"):
        assert 'href="./project/demo/"' not in read_text(server, target).replace("../", "./")
    assert upload(server.url, build_wheel("demo", "3.0")).status_code == 403
    act(program, "status", "demo", "active")
    assert len(read_page(server)["files"]) == 3


def test_a_quarantine_keeps_a_name_from_upstream(serve: Serve, program: Program) -> None:
    """Also of a project that was never here."""
    server = serve(*OPEN, "--fallback-url", "http://127.0.0.1:9/simple/")
    assert httpx2.get(f"{server.simple}absent/").status_code == 302
    act(program, "status", "absent", "quarantined")
    assert read_page(server, "absent")["files"] == []
    act(program, "status", "absent", "active")
    assert httpx2.get(f"{server.simple}absent/").status_code == 302


WRONG = (
    (("yank", "demo", "9"), 1, "demo '9' is not here; its newest versions are 2.0, 1.0"),
    (("yank", "absent", "1.0"), 1, "absent has no file here"),
    (("unyank", "demo", "9"), 1, "'9' is not here"),
    (("delete", "demo", "9"), 1, "demo '9' is not here"),
    (("status", "absent", "archived"), 1, "absent has no file here"),
    (("yank",), 2, "NAME"),
    (("yank", "demo"), 2, "VERSION"),
    (("yank", "a/b", "1.0"), 2, "'a/b' is not a project name"),
    (("yank", "demo", "1.0", "--reason", "two\nlines"), 2, "one line"),
    (("yank", "demo", "1.0", "--reason", "x" * 501), 2, "one line"),
    (("yank", "demo", "1" * 5000), 2, "is not a version"),
    (("delete", "demo", "1\x1b]0;x\x07"), 2, "is not a version"),
    (("yank", "demo", "1.0", "--config", "\x1b]0;x\x07"), 2, "cannot read"),
    (("status", "demo", "gone"), 2, "'archived'"),
    (("yank", "demo", "1.0", "missing"), 2, "missing"),
    (("yank", "demo", "1.0", "--port", "1"), 2, "--port"),
)


@pytest.mark.parametrize(
    ("args", "code", "says"), WRONG, ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_what_cannot_be_done(program: Program, args: tuple[str, ...], code: int, says: str) -> None:
    """One line that says why, and an exit code that tells bad usage from an index that has no such thing."""
    done = program.run(*args)
    assert (done.returncode, done.stdout) == (code, ""), done
    (line,) = done.stderr.splitlines()
    assert line.startswith("pypiserver-ng: error: ")
    assert says in line


def test_verify_names_what_is_wrong(serve: Serve, program: Program, packages: Path) -> None:
    """Flipped bytes, a missing file, foreign ones and a broken archive; exit code 1 while there is any."""
    make_wheel(packages / "sub", "third", "1.0")
    server = serve(*CLOSED)
    for name in ("demo", "other", "third"):
        read_page(server, name)
    server.stop()
    done = program.run("verify")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "0 problems found\n")
    (packages / "broken-1.0-py3-none-any.whl").write_bytes(b"not a zip")
    act_with_warning = program.run("reindex")
    assert (act_with_warning.returncode, "broken-1.0" in act_with_warning.stderr) == (0, True)
    flipped = packages / "other-1.0-py3-none-any.whl"
    status = flipped.stat()
    content = bytearray(flipped.read_bytes())
    content[100] ^= 1
    flipped.write_bytes(content)
    os.utime(flipped, ns=(status.st_atime_ns, status.st_mtime_ns))
    (packages / "sub" / "third-1.0-py3-none-any.whl").unlink()
    make_wheel(packages, "new", "1.0")
    (packages / "notes.txt").write_text("x")
    done = program.run("verify")
    said = {line.partition(": ")[0]: line.partition(": ")[2] for line in done.stdout.splitlines()}
    assert done.returncode == 1
    assert {path.removeprefix(f"{packages}/"): text[:20] for path, text in said.items()} == {
        "broken-1.0-py3-none-any.whl": "cannot be opened: Th",
        "new-1.0-py3-none-any.whl": "is not in the catalo",
        "notes.txt": "is not a distributio",
        "other-1.0-py3-none-any.whl": "its bytes changed: r",
        "sub/third-1.0-py3-none-any.whl": "is missing",
    }


def test_reindex_reads_everything_again(serve: Serve, program: Program, packages: Path) -> None:
    """Also what looks unchanged from outside, in a running server whose pages stay up; yanks stay."""
    server = serve(*CLOSED)
    read_page(server)
    act(program, "yank", "demo", "2.0")
    path = packages / "demo-2.0-py3-none-any.whl"
    old, new = path.stat(), build_wheel("demo", "2.0", requires_python=">=3.9")
    size = len(new.content)
    path.write_bytes(new.content)
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
    assert act(program, "reindex") == "4 files read"
    (file,) = [file for file in read_page(server)["files"] if file["filename"] == path.name]
    assert (file["hashes"]["sha256"], file["size"], file["yanked"]) == (new.sha256, size, True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as somebody else")
def test_root_acts_as_the_owner_of_the_state(environment: dict[str, str]) -> None:
    """Files that root left in it would be closed to the server."""
    with tempfile.TemporaryDirectory() as home:
        # Not below the directory of the other tests, which only root may enter.
        packages = Path(home) / "packages"
        make_wheel(packages, "demo", "1.0")
        for path in (Path(home), packages, *packages.iterdir()):
            os.chown(path, 65534, 65534)
        done = Program(Path(home), environment).run("yank", "demo", "1.0")
        assert (done.returncode, done.stdout) == (0, "yanked demo 1.0\n"), done
        assert "is new" in done.stderr
        assert {path.stat().st_uid for path in (packages / ".pypiserver-ng").rglob("*")} == {65534}


def test_a_command_forgets_nothing_that_it_was_not_told_of(serve: Serve, program: Program, tmp_path: Path) -> None:
    """It may know fewer directories than the server: what lies in the others is local all the time."""
    make_wheel(tmp_path / "second", "secret", "1.0")
    server = serve("second", *OPEN, "--fallback-url", "http://127.0.0.1:9/simple/")
    assert len(read_page(server, "secret")["files"]) == 1
    (tmp_path / "alias").symlink_to(tmp_path / "packages")
    seen: set[int] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            for name in ("secret", "demo"):
                seen.add(httpx2.get(f"{server.simple}{name}/", follow_redirects=False).status_code)

    watching = threading.Thread(target=watch)
    watching.start()
    act(program, "yank", "demo", "1.0", "packages")
    act(program, "reindex", "packages")
    act(program, "unyank", "demo", "1.0", "alias", "--state-dir", "packages/.pypiserver-ng")
    done.set()
    watching.join()
    assert seen == {200}


def test_a_new_state_directory_is_named(program: Program) -> None:
    """The server has another: nobody would see what the command did. To compare with nothing is an error."""
    done = program.run("status", "demo", "quarantined", "--state-dir", "typo", "packages")
    assert (done.returncode, done.stderr.startswith("note: typo is new")) == (0, True), done
    done = program.run("verify", "--state-dir", "other", "packages")
    assert (done.returncode, "there is no catalog in other" in done.stderr) == (2, True), done


def test_a_deletion_that_was_broken_off_is_finished(serve: Serve, program: Program, packages: Path) -> None:
    """By whoever looks next: half a release never comes back, least of all without its yank."""
    for number in range(300):
        make_wheel(packages, "big", "1.0", build=f"{number}")
    server = serve(*CLOSED)
    assert len(read_page(server, "big")["files"]) == 300
    act(program, "yank", "big", "1.0", "--reason", "malware")
    command = [sys.executable, "-m", "pypiserver_ng", "delete", "big", "1.0"]
    deleting = subprocess.Popen(command, cwd=program.cwd, env=program.environment, stdout=subprocess.DEVNULL)
    wait_until(lambda: len(list(packages.glob("big-*"))) < 300, within=30)
    deleting.kill()
    deleting.wait()
    assert httpx2.get(f"{server.simple}big/").status_code == 404
    wait_until(lambda: not list(packages.glob("big-*")), within=30)
    assert httpx2.get(f"{server.simple}big/").status_code == 404


def test_bytes_that_changed_in_the_directory_are_named(serve: Serve, packages: Path, program: Program) -> None:
    """In the log when it is noticed, and by `verify` as long as they are not those that were uploaded."""
    server = serve(*CLOSED)
    built = build_wheel("fresh", "1.0")
    assert upload(server.url, built).status_code == 200
    (packages / built.filename).write_bytes(build_wheel("fresh", "1.0", description="other").content)
    server.wait_for_log(f"{built.filename} was changed in its directory")
    wait_until(lambda: read_page(server, "fresh")["files"][0]["hashes"]["sha256"] != built.sha256)
    done = program.run("verify")
    assert (done.returncode, f"uploaded as sha256 {built.sha256}" in done.stdout) == (1, True), done


def test_the_last_file_of_a_project(serve: Serve, program: Program) -> None:
    """Whoever deletes it opens the name to the fallback, and is told."""
    done = program.run("delete", "other", "1.0")
    assert (done.returncode, done.stdout) == (0, "deleted other-1.0-py3-none-any.whl\n")
    assert "other has no file here any more" in done.stderr


def test_many_files_are_read_again(program: Program, packages: Path) -> None:
    """More than one transaction takes; those whose bytes changed are named."""
    for number in range(70):
        make_wheel(packages, "many", f"1.{number}")
    assert act_anew(program, "reindex") == "74 files read"
    path = packages / "many-1.69-py3-none-any.whl"
    status = path.stat()
    content = path.read_bytes()
    path.write_bytes(content[:50] + b"x" + content[51:])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert program.run("reindex").stdout == f"{path.name} has other bytes than before\n74 files read\n"


def act_anew(program: Program, *args: str) -> str:
    done = program.run(*args)
    assert (done.returncode, done.stderr.startswith("note: packages/.pypiserver-ng is new")) == (0, True), done
    return done.stdout.strip()

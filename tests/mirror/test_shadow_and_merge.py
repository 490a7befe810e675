"""Local and upstream files of one name: shadowed unless merging is written down, and never asked for in vain."""

from pathlib import Path

import pytest

from tests.mirror.asking import HTML, ask, glance, is_complete, listed, page_of, url_of
from tests.mirror.conftest import Mirror
from tests.mirror.visible import assert_offered, assert_refused, explain, is_nowhere
from tests.tools.distributions import build_sdist, build_wheel
from tests.tools.mirrored import Mirrored
from tests.tools.program import Program
from tests.tools.server import wait_until
from tests.tools.uploads import upload

LOCAL = build_wheel("demo", "1.0", description="local")
#: The name of LOCAL with other bytes.
TWIN = build_wheel("demo", "1.0", description="public")
NEWER = build_wheel("demo", "9.0")
SDIST = build_sdist("demo", "9.0")


@pytest.fixture(autouse=True)
def stock(mirrored: Mirrored) -> None:
    mirrored.add("demo", TWIN, NEWER, SDIST)


def test_a_local_project_asks_nobody(mirror: Mirror, mirrored: Mirrored, packages: Path) -> None:
    """On no surface; upstream's files are refused although nobody has looked at its page."""
    LOCAL.write(packages)
    server = mirror()
    local = f"/packages/{LOCAL.filename}"
    assert listed(server) == {LOCAL.filename: local}
    assert ask(server, local).body == LOCAL.content
    assert ask(server, f"{local}.metadata").status == 200
    for path in ("/pypi/demo/json", "/demo/json", "/demo/", "/project/demo/", "/-/why/demo", "/simple/"):
        assert ask(server, path, accept=HTML).status in {200, 302, 307}, path
    assert ask(server, "/pypi/demo/9.0/json").status == 404
    assert page_of(server, cache_control="no-cache").status == 200
    for one in (NEWER, SDIST, TWIN):
        assert_refused(server, one, "shadow|local|here")
    why = ask(server, "/-/why/demo", accept="application/json").json
    assert (why["decision"]["origin"], why["decision"]["rule"]) == ("local", "shadow")
    assert mirrored.requests == []


def test_a_project_becomes_local(mirror: Mirror, mirrored: Mirrored) -> None:
    """From the upload on, what was fetched before is not given out any more; with the last local file it is again."""
    server = mirror()
    for one in (TWIN, NEWER, SDIST):
        assert_offered(server, one)
    assert upload(server.url, LOCAL).status_code == 200
    asked = len(mirrored.requests)
    assert list(listed(server)) == [LOCAL.filename]
    for one in (TWIN, NEWER, SDIST):
        assert_refused(server, one, "shadow|local|here")
    shadowed = explain(server, NEWER)
    assert shadowed["offered"] is False
    assert len(mirrored.requests) == asked


def test_a_project_is_local_no_more(mirror: Mirror, mirrored: Mirrored, packages: Path) -> None:
    server = mirror()
    path = LOCAL.write(packages)
    wait_until(lambda: glance(server) == [LOCAL.filename], within=10)
    assert list(listed(server)) == [LOCAL.filename]
    path.unlink()
    wait_until(lambda: NEWER.filename in glance(server), within=10)
    assert_offered(server, NEWER)


def test_reserved_projects(mirror: Mirror, mirrored: Mirrored) -> None:
    """Unknown, even before the first upload and on every surface; upstream does not hear the name."""
    mirrored.add("acme-core", build_wheel("acme-core", "1.0"))
    server = mirror("--reserve", "acme-*", "--reserve", "demo", "--merge", "*")
    assert is_nowhere(server, "acme-core")
    assert is_nowhere(server, "demo")
    for path in (url_of(NEWER), f"{url_of(NEWER)}.metadata", url_of(SDIST)):
        for method in ("GET", "HEAD"):
            assert ask(server, path, method=method).status in {403, 404}
    assert upload(server.url, LOCAL).status_code == 200
    assert list(listed(server)) == [LOCAL.filename]
    assert mirrored.requests == []


def test_never_upstream_by_an_entry(mirror: Mirror, mirrored: Mirrored) -> None:
    server = mirror(config='[[policy]]\nprojects = ["demo"]\nupstream = []\n')
    assert is_nowhere(server, "demo")
    assert ask(server, url_of(NEWER)).status in {403, 404}
    assert mirrored.requests == []


@pytest.mark.parametrize("by", ("flag", "entry"))
def test_merged_projects(mirror: Mirror, mirrored: Mirrored, packages: Path, by: str) -> None:
    """Both lists together; of a name that both have the local bytes win, and upstream's are refused."""
    LOCAL.write(packages)
    config = '[[policy]]\nprojects = ["de*"]\nmerge = true\n'
    server = mirror("--merge", "demo") if by == "flag" else mirror(config=config)
    local = f"/packages/{LOCAL.filename}"
    assert listed(server) == {LOCAL.filename: local, NEWER.filename: url_of(NEWER), SDIST.filename: url_of(SDIST)}
    assert ask(server, local).body == LOCAL.content
    for one in (NEWER, SDIST):
        assert_offered(server, one)
    assert_refused(server, TWIN, "shadow|local|here")
    assert LOCAL.sha256 in page_of(server).text
    assert TWIN.sha256 not in page_of(server).text
    assert mirrored.count_files(TWIN) == 0
    assert ask(server, "/-/why/demo", accept="application/json").json["decision"]["origin"] == "merged"


def test_merging_follows_uploads(mirror: Mirror, mirrored: Mirrored) -> None:
    """The page of a merged project is as exact as a local one, without a question to upstream."""
    server = mirror("--merge", "demo")
    assert TWIN.filename in listed(server)
    for version in ("2.0", "3.0"):
        wheel = build_wheel("demo", version)
        assert upload(server.url, wheel).status_code == 200
        assert listed(server).keys() >= {wheel.filename, NEWER.filename}
    assert upload(server.url, LOCAL).status_code == 200
    assert listed(server)[LOCAL.filename] == f"/packages/{LOCAL.filename}"
    assert mirrored.count_pages() == 1


def test_merging_follows_upstream(mirror: Mirror, mirrored: Mirrored) -> None:
    """Nothing changes here, and the same question is asked again and again: what upstream adds is seen all the same."""
    server = mirror("--merge", "demo", config='[[policy]]\nprojects = ["*"]\nmax-age = "1s"\nmerge = true\n')
    assert upload(server.url, LOCAL).status_code == 200
    assert NEWER.filename in listed(server)
    newest = build_wheel("demo", "10.0")
    mirrored.add("demo", newest)
    wait_until(lambda: newest.filename in glance(server), within=10)


def test_merged_projects_that_upstream_does_not_have(mirror: Mirror, mirrored: Mirrored) -> None:
    server = mirror("--merge", "*")
    mine = build_wheel("mine", "1.0")
    assert upload(server.url, mine).status_code == 200
    assert list(listed(server, "mine")) == [mine.filename]


def test_merged_projects_obey_the_rules(mirror: Mirror, mirrored: Mirrored, packages: Path) -> None:
    """A cooldown concerns what comes from upstream, not what is here."""
    LOCAL.write(packages)
    mirrored.add("demo", NEWER, upload_time=None)
    server = mirror("--merge", "demo", "--cooldown", "4d")
    assert listed(server).keys() == {LOCAL.filename, SDIST.filename}
    assert_refused(server, NEWER, r"9\.0")


def test_a_quarantined_project_is_nobodys(mirror: Mirror, mirrored: Mirrored, program: Program) -> None:
    """Its status holds for upstream's files too, when they would be merged."""
    server = mirror("--merge", "demo")
    assert upload(server.url, LOCAL).status_code == 200
    assert program.run("status", "demo", "quarantined").returncode == 0
    wait_until(lambda: glance(server) == [], within=5)
    assert listed(server) == {}
    assert not is_complete(ask(server, url_of(NEWER)))

"""Pages of upstream projects: how long they are believed, what a failing upstream means, and what clients may keep."""

import gzip
from typing import Any

import pytest

from tests.mirror.asking import (
    ASK_EACH_TIME,
    HTML,
    JSON,
    OUTAGE,
    ask,
    asked_at_once,
    has_failed,
    listed,
    page_of,
    read_all,
    url_of,
)
from tests.mirror.conftest import Mirror
from tests.tools.distributions import build_sdist, build_wheel
from tests.tools.mirrored import Mirrored
from tests.tools.server import wait_until

OLD = build_wheel("demo", "1.0", requires_python=">=3.8")
SDIST = build_sdist("demo", "1.0")
NEW = build_wheel("demo", "2.0")
PAGE = "/simple/demo/"
LOGIN = b'<!DOCTYPE html><html><body><form action="/login"><input name="password"></form></body></html>'

#: What an upstream may answer instead of a page, as fields of a fault, by the name of the project that it befalls.
FAILURES: dict[str, dict[str, Any]] = {
    "status-500": {"status": 500},
    "status-502": {"status": 502},
    "status-503": {"status": 503, "headers": {"Retry-After": "30"}},
    "status-503-until-a-date": {"status": 503, "headers": {"Retry-After": "Fri, 31 Dec 2100 23:59:59 GMT"}},
    "status-429": {"status": 429, "headers": {"Retry-After": "30"}},
    "status-429-with-nonsense": {"status": 429, "headers": {"Retry-After": "soon"}},
    "status-401": {"status": 401, "headers": {"WWW-Authenticate": "Basic"}},
    "status-403": {"status": 403},
    "status-204": {"status": 204, "body": b""},
    "redirect-to-itself": {"status": 302, "headers": {"Location": "../redirect-to-itself/"}},
    "redirect-to-nowhere": {"status": 302},
    "redirect-to-a-file": {"status": 302, "headers": {"Location": "file:///etc/passwd"}},
    "no-answer": {"cut": -1},
    "half-a-page": {"cut": 60},
    "nothing": {"body": b""},
    "garbage": {"body": b"\x00\xff\x00garbage"},
    "half-a-json": {"body": b'{"meta": {"api-version": "1.1"}, "files": ['},
    "json-of-something-else": {"body": b'{"message": "maintenance"}'},
    "json-of-the-next-age": {"body": b'{"meta": {"api-version": "2.0"}, "name": "demo", "files": []}'},
    "login-page": {"body": LOGIN, "headers": {"Content-Type": "text/html"}},
    "login-page-called-json": {"body": LOGIN},
    "picture": {"body": b"\x89PNG\r\n\x1a\n", "headers": {"Content-Type": "image/png"}},
    "broken-compression": {"body": b"\x1f\x8bbroken", "headers": {"Content-Encoding": "gzip"}},
    "bomb": {"body": gzip.compress(bytes(70_000_000), 1), "headers": {"Content-Encoding": "gzip"}},
}


@pytest.fixture(autouse=True)
def stock(mirrored: Mirrored) -> None:
    mirrored.add("demo", OLD, requires_python=">=3.8")
    mirrored.add("demo", SDIST, yanked='bad "><script>')


def test_a_page_lists_what_upstream_has(mirror: Mirror, mirrored: Mirrored) -> None:
    """Both formats, from one request; links lead here and are relative, facts are passed on and escaped."""
    server = mirror()
    assert listed(server) == {one.filename: url_of(one) for one in (OLD, SDIST)}
    assert mirrored.count_pages() == 1
    page, html = page_of(server).json, page_of(server, accept=HTML).text
    assert page["meta"]["api-version"] == "1.4"
    wheel, sdist = sorted(page["files"], key=lambda file: file["filename"], reverse=True)
    if wheel["filename"] != OLD.filename:
        wheel, sdist = sdist, wheel
    assert wheel["url"] == f"../..{url_of(OLD)}"
    assert (wheel["hashes"], wheel["size"]) == ({"sha256": OLD.sha256}, len(OLD.content))
    assert (wheel["requires-python"], wheel["upload-time"][:19]) == (">=3.8", "2020-02-02T00:00:00")
    assert (wheel["yanked"], sdist["yanked"]) == (False, 'bad "><script>')
    assert f"#sha256={OLD.sha256}" in html
    assert "<script>" not in html
    assert mirrored.root not in html + page_of(server).text


def test_the_normalized_name_is_asked(mirror: Mirror, mirrored: Mirrored) -> None:
    """Other spellings are redirected here first; the JSON API and the root page ask for no list."""
    server = mirror()
    for path in ("/simple/Demo/", "/simple/demo", "/simple/DEMO/"):
        assert ask(server, path).status in {301, 302, 307, 308}, path
    assert ask(server, "/simple/").status == 200
    assert mirrored.paths == []
    assert ask(server, PAGE).status == 200
    assert mirrored.paths == [PAGE]


def test_many_at_once_are_one_request(mirror: Mirror, mirrored: Mirrored) -> None:
    server = mirror()
    hanging = mirrored.spoil(PAGE, hang=True)
    with asked_at_once(server, PAGE, 50) as clients:
        assert hanging.reached.wait(10)
        hanging.release()
        answers = read_all(clients)
    assert {(answer.status, answer.body) for answer in answers} == {(200, answers[0].body)}
    assert mirrored.count_pages() == 1


def test_a_fresh_page_is_not_asked_for_again(mirror: Mirror, mirrored: Mirrored) -> None:
    """Ten minutes by default, whatever the format, HEAD and `max-age=0` included."""
    server = mirror()
    for headers in ({}, {"cache_control": "max-age=0"}, {"accept": HTML}, {"method": "HEAD"}):
        assert ask(server, PAGE, **headers).status == 200
    assert mirrored.count_pages() == 1


def test_a_client_may_ask_for_a_new_page(mirror: Mirror, mirrored: Mirrored) -> None:
    """`no-cache` asks upstream again, at most once in ten seconds."""
    server = mirror()
    assert OLD.filename in listed(server)
    mirrored.add("demo", NEW)
    assert NEW.filename not in listed(server)
    wait_until(lambda: NEW.filename in page_of(server, cache_control="no-cache").text, within=15)
    assert NEW.filename in listed(server)
    asked = mirrored.count_pages()
    assert asked == 2
    for _ in range(5):
        assert page_of(server, cache_control="no-cache").status == 200
    assert mirrored.count_pages() == asked


@pytest.mark.parametrize(
    ("etag", "last_modified", "condition"),
    ((True, False, "if-none-match"), (False, True, "if-modified-since"), (False, False, None)),
)
def test_a_stale_page_is_asked_for_with_its_validators(
    mirror: Mirror, mirrored: Mirrored, etag: bool, last_modified: bool, condition: str | None
) -> None:
    """By tag, by time, or as a whole where upstream gives neither; 304 keeps the page."""
    mirrored.look.etag, mirrored.look.last_modified = etag, last_modified
    server = mirror(config=ASK_EACH_TIME)
    assert len({page_of(server).body for _ in range(3)}) == 1
    first, *others = [{"if-none-match", "if-modified-since"} & one.headers.keys() for one in mirrored.requests]
    assert first == set()
    assert others == [{condition} if condition else set()] * 2


def test_a_page_becomes_stale(mirror: Mirror, mirrored: Mirrored) -> None:
    """After the age that its entry gives, new files are seen without a word from anybody."""
    server = mirror(config='[[policy]]\nprojects = ["de*"]\nmax-age = "1s"\n')
    assert NEW.filename not in listed(server)
    mirrored.add("demo", NEW)
    wait_until(lambda: NEW.filename in listed(server), within=10)


def test_our_entity_tag_is_stable(mirror: Mirror, mirrored: Mirrored) -> None:
    """It follows the content, not upstream's tag, and survives a restart; 304 for who has the page."""
    server = mirror(config=ASK_EACH_TIME)
    tags = {accept: page_of(server, accept=accept).headers["etag"] for accept in (HTML, JSON)}
    mirrored.look.salt = "other"
    for accept, tag in tags.items():
        assert page_of(server, accept=accept).headers["etag"] == tag
        assert page_of(server, accept=accept, if_none_match=tag).status == 304
    server.stop()
    again = mirror(config=ASK_EACH_TIME)
    for accept, tag in tags.items():
        assert page_of(again, accept=accept, if_none_match=tag).status == 304
    mirrored.add("demo", NEW)
    assert page_of(again, if_none_match=tags[JSON]).status == 200


def test_headers_are_those_of_a_local_page(mirror: Mirror, mirrored: Mirrored) -> None:
    """Stale or fresh: `Vary`, a short age, and a connection that is kept."""
    server = mirror(config=ASK_EACH_TIME)
    fresh = page_of(server)
    mirrored.stop()
    stale = page_of(server)
    for answer in (fresh, stale):
        assert "accept" in answer.headers["vary"].lower()
        assert "immutable" not in answer.headers.get("cache-control", "")
        assert answer.headers.get("connection", "keep-alive") == "keep-alive"
    assert (stale.status, stale.body, stale.headers["etag"]) == (200, fresh.body, fresh.headers["etag"])


def test_an_outage_is_told_as_one(mirror: Mirror, mirrored: Mirrored) -> None:
    """Without a kept page: 502 or 503 and when to come again, never 404, never an empty page; remembered briefly."""
    server = mirror()
    for project, fault in FAILURES.items():
        mirrored.add(project, OLD)
        mirrored.spoil(f"/simple/{project}/", **fault)
        assert has_failed(page_of(server, project)), project
        asked = mirrored.count_pages(project)
        assert asked in range(1, 8), project
        for accept in (JSON, HTML):
            assert has_failed(page_of(server, project, accept=accept)), project
        assert page_of(server, project, method="HEAD").status in OUTAGE, project
        assert has_failed(ask(server, f"/pypi/{project}/json")), project
        assert mirrored.count_pages(project) == asked, project


def test_the_last_page_outlives_failures(mirror: Mirror, mirrored: Mirrored) -> None:
    """What was known is answered, and the failing upstream is left alone for a while."""
    # Else an upstream that knows its page would answer 304, which is no failure.
    mirrored.look.etag = False
    server = mirror(config=ASK_EACH_TIME)
    for project, fault in FAILURES.items():
        mirrored.add(project, build_wheel(project, "1.0"))
        known = page_of(server, project)
        assert known.status == 200
        mirrored.spoil(f"/simple/{project}/", **fault)
        assert page_of(server, project).body == known.body, project
        # The answer may have been given before upstream's was there.
        wait_until(lambda: mirrored.count_pages(project) > 1, within=10)  # noqa: B023 - called at once
        assert page_of(server, project).body == known.body, project
        asked = mirrored.count_pages(project)
        assert {page_of(server, project).body for _ in range(3)} == {known.body}, project
        assert mirrored.count_pages(project) == asked, project


def test_a_refused_connection_is_an_outage(mirror: Mirror, mirrored: Mirrored) -> None:
    """And ends when upstream is back, without a restart here."""
    server = mirror(config=ASK_EACH_TIME)
    mirrored.stop()
    assert has_failed(page_of(server))
    mirrored.start()
    wait_until(lambda: page_of(server).status == 200, within=30)
    mirrored.stop()
    assert page_of(server).status == 200
    assert page_of(server, "other").status in OUTAGE
    mirrored.add("demo", NEW)
    mirrored.start()
    wait_until(lambda: NEW.filename in page_of(server).text, within=30)


def test_a_failed_flight_fails_for_all(mirror: Mirror, mirrored: Mirrored) -> None:
    """A crowd that waits for one answer gets it, be it bad."""
    server = mirror()
    hanging = mirrored.spoil(PAGE, hang=True, status=500)
    with asked_at_once(server, PAGE, 20) as clients:
        assert hanging.reached.wait(10)
        hanging.release()
        assert all(has_failed(answer) for answer in read_all(clients))
    assert mirrored.count_pages() <= 2


def test_a_hanging_upstream_is_not_waited_for(mirror: Mirror, mirrored: Mirrored) -> None:
    """The kept page is answered while upstream still hangs; the new one comes once it is there."""
    server = mirror(config=ASK_EACH_TIME)
    known = page_of(server)
    mirrored.add("other", NEW)
    mirrored.add("demo", NEW)
    hanging = mirrored.spoil(PAGE, hang=True)
    assert page_of(server).body == known.body
    assert hanging.reached.wait(10)
    with asked_at_once(server, PAGE, 8) as clients:
        assert [answer.body for answer in read_all(clients)] == [known.body] * 8
    # Others do not wait with it.
    assert page_of(server, "other").status == 200
    assert mirrored.count_pages() == 2, "one asks, and nobody else meanwhile"
    hanging.release()
    wait_until(lambda: NEW.filename in page_of(server).text, within=10)


def test_a_cold_page_does_not_wait_for_ever(mirror: Mirror, mirrored: Mirrored) -> None:
    """An upstream that never answers is an outage, and the next client is told at once."""
    server = mirror()
    hanging = mirrored.spoil(PAGE, hang=True)
    assert has_failed(page_of(server))
    asked = mirrored.count_pages()
    assert has_failed(page_of(server))
    assert mirrored.count_pages() == asked
    hanging.release()


def test_304_to_a_question_that_nobody_asked(mirror: Mirror, mirrored: Mirrored) -> None:
    """Without a page that it could mean, it is an outage."""
    mirrored.spoil(PAGE, status=304, body=b"")
    assert has_failed(page_of(mirror()))


def test_unknown_projects_are_unknown(mirror: Mirror, mirrored: Mirrored) -> None:
    """404, remembered for a moment and not for long."""
    server = mirror()
    for _ in range(5):
        assert page_of(server, "absent").status == 404
    assert page_of(server, "absent", accept=HTML).status == 404
    assert mirrored.count_pages("absent") == 1
    mirrored.add("absent", build_wheel("absent", "1.0"))
    wait_until(lambda: page_of(server, "absent").status == 200, within=60)


def test_a_project_that_was_removed(mirror: Mirror, mirrored: Mirrored) -> None:
    """The page goes with it; it is not stale, but gone."""
    server = mirror(config=ASK_EACH_TIME)
    assert page_of(server).status == 200
    mirrored.remove("demo")
    wait_until(lambda: page_of(server).status == 404, within=10)


def test_a_project_without_files(mirror: Mirror, mirrored: Mirrored) -> None:
    """Upstream's empty page is no failure."""
    server = mirror()
    mirrored.add("empty")
    assert listed(server, "empty") == {}
    mirrored.look.as_json = False
    mirrored.add("empty-html")
    assert listed(server, "empty-html") == {}


def test_freshness_survives_a_restart(mirror: Mirror, mirrored: Mirrored) -> None:
    first = mirror()
    known = page_of(first)
    first.stop()
    again = page_of(mirror())
    assert (again.status, again.body) == (200, known.body)
    assert mirrored.count_pages() == 1


def test_connections_are_kept(mirror: Mirror, mirrored: Mirrored) -> None:
    """One after the other, over one connection, compressed."""
    server = mirror()
    mirrored.look.gzip = True
    for number in range(10):
        mirrored.add(f"demo-{number}", build_wheel(f"demo-{number}", "1.0"))
        assert page_of(server, f"demo-{number}").status == 200
    assert mirrored.connections <= 2
    assert all("gzip" in request.headers["accept-encoding"] for request in mirrored.requests)


def test_a_projects_status_is_passed_on(mirror: Mirror, mirrored: Mirrored) -> None:
    mirrored.set_status("demo", "archived", "no one is left")
    page = page_of(mirror()).json
    assert page["project-status"] == {"status": "archived", "reason": "no one is left"}

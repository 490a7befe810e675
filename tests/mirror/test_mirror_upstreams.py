"""Which upstream is asked, and how: several in order, poor ones, odd links, redirects, credentials, proxies."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.mirror.asking import (
    ASK_EACH_TIME,
    HTML,
    OUTAGE,
    ask,
    has_failed,
    is_complete,
    listed,
    page_of,
    url_of,
)
from tests.mirror.conftest import Mirror
from tests.mirror.listings import Look
from tests.tools.distributions import Distribution, build_sdist, build_wheel
from tests.tools.mirrored import Mirrored
from tests.tools.server import Server

WHEEL = build_wheel("demo", "1.0")
SDIST = build_sdist("demo", "1.0")
OTHER = build_wheel("demo", "9.9.9")
PAGE = "/simple/demo/"
SECRET = "pa:ss@word"
QUOTED = "user:pa%3Ass%40word"


def two(first: Mirrored, second: Mirrored, on_error: str = "next") -> str:
    """Two upstreams, for `--config`."""
    return (
        f'[[upstream]]\nname = "near"\nurl = "{first.url}"\non-error = "{on_error}"\n'
        f'[[upstream]]\nname = "far"\nurl = "{second.url}"\n'
    )


def assert_delivers(server: Server, project: str = "demo", files: Iterable[Distribution] = (WHEEL, SDIST)) -> None:
    """The page lists the files, and they arrive."""
    assert listed(server, project) == {one.filename: url_of(one) for one in files}
    for one in files:
        assert ask(server, url_of(one)).body == one.content


# Several upstreams


def test_the_first_that_has_the_project_decides(mirror: Mirror, mirrored: Mirrored, second: Mirrored) -> None:
    """The lists are never mixed, and the others do not hear the name."""
    mirrored.add("demo", WHEEL)
    second.add("demo", OTHER)
    server = mirror(config=two(mirrored, second))
    assert list(listed(server)) == [WHEEL.filename]
    assert is_complete(ask(server, url_of(WHEEL)))
    assert ask(server, url_of(OTHER)).status in {403, 404}
    assert second.requests == []


def test_an_empty_page_decides_too(mirror: Mirror, mirrored: Mirrored, second: Mirrored) -> None:
    mirrored.add("demo")
    second.add("demo", OTHER)
    assert listed(mirror(config=two(mirrored, second))) == {}
    assert second.requests == []


def test_the_next_is_asked_after_404(mirror: Mirror, mirrored: Mirrored, second: Mirrored) -> None:
    """Its files come from it as well; `--fallback-url` may be repeated in the same sense."""
    second.add("demo", OTHER)
    server = mirror("--fallback-url", mirrored.url, "--fallback-url", second.url)
    assert list(listed(server)) == [OTHER.filename]
    assert ask(server, url_of(OTHER)).body == OTHER.content
    assert mirrored.paths == [PAGE]
    assert page_of(server, "absent").status == 404


@pytest.mark.parametrize(
    ("first", "on_error", "has_second", "status"),
    (
        ("500", "next", True, 200),
        ("500", "stop", True, 0),
        ("500", "next", False, 0),
        ("500", "stop", False, 0),
        ("404", "stop", True, 200),
        ("404", "stop", False, 404),
        ("refused", "next", True, 200),
        ("refused", "stop", True, 0),
        ("refused", "next", False, 0),
    ),
)
def test_what_a_failure_means_for_the_next(
    mirror: Mirror, mirrored: Mirrored, second: Mirrored, first: str, on_error: str, has_second: bool, status: int
) -> None:
    """`next` goes on, `stop` does not, and "failed, then 404" is an outage; 0 stands for 502 or 503."""
    if first == "500":
        mirrored.spoil("*", status=500)
    if first == "refused":
        mirrored.stop()
    if has_second:
        second.add("demo", OTHER)
    server = mirror(config=two(mirrored, second, on_error))
    answer = page_of(server)
    assert answer.status == status or (status == 0 and has_failed(answer)), answer
    stops = on_error == "stop" and first != "404"
    assert second.paths == ([] if stops else [PAGE])


def test_not_found_and_then_a_failure(mirror: Mirror, mirrored: Mirrored, second: Mirrored) -> None:
    """Nobody knows whether the second has it."""
    second.spoil("*", status=500)
    assert has_failed(page_of(mirror(config=two(mirrored, second))))


def test_a_failing_first_does_not_uncover_the_second(mirror: Mirror, mirrored: Mirrored, second: Mirrored) -> None:
    """Where the first one's page is kept, its failure brings that page and not another index's."""
    mirrored.add("demo", WHEEL)
    second.add("demo", OTHER)
    server = mirror(config=two(mirrored, second) + ASK_EACH_TIME)
    assert list(listed(server)) == [WHEEL.filename]
    mirrored.stop()
    assert list(listed(server)) == [WHEEL.filename]


def test_another_upstream_of_the_same_name(mirror: Mirror, mirrored: Mirrored, second: Mirrored) -> None:
    """A URL that was changed in the configuration is another index: its pages are not those that were kept."""
    mirrored.add("demo", WHEEL)
    second.add("demo", OTHER)
    first = mirror()
    assert list(listed(first)) == [WHEEL.filename]
    first.stop()
    assert list(listed(mirror("--fallback-url", second.url))) == [OTHER.filename]


def test_an_entry_names_its_upstreams(mirror: Mirror, mirrored: Mirrored, second: Mirrored) -> None:
    """In the entry's order; without any, the project is unknown and nobody is asked."""
    mirrored.add("demo", WHEEL)
    second.add("demo", OTHER)
    entries = (
        '[[policy]]\nprojects = ["demo"]\nupstream = ["far", "near"]\n'
        '[[policy]]\nprojects = ["secret-*"]\nupstream = []\n'
    )
    server = mirror(config=two(mirrored, second) + entries)
    assert list(listed(server)) == [OTHER.filename]
    assert page_of(server, "secret-plan").status == 404
    assert (mirrored.requests, second.paths) == ([], [PAGE])


# Poor upstreams and links


#: What upstreams lack, and how their links look, as fields of `Look`.
POVERTY: tuple[dict[str, Any], ...] = (
    {"as_json": False},
    {"as_json": False, "content_type": "text/html"},
    {"as_json": False, "content_type": "text/html; charset=ISO-8859-1"},
    {"as_json": False, "etag": False, "metadata": False},
    {"content_type": "application/json"},
    {"content_type": "text/plain"},
    {"sizes": False, "upload_times": False},
    {"etag": False, "sizes": False, "upload_times": False, "metadata": False},
    {"gzip": True},
    {"links": "../../files/"},
    {"as_json": False, "links": "../../files/"},
    {"as_json": False, "base": "/deep/er/", "links": "../../files/"},
    {"as_json": False, "base": "../../files/", "links": ""},
)


def test_upstreams_of_every_kind(mirror: Mirror, mirrored: Mirrored) -> None:
    """HTML alone, wrong types, no validators, no sizes, links of every kind: the files arrive, in both formats."""
    server = mirror()
    for number, poverty in enumerate(POVERTY):
        name = f"poor-{number}"
        files = build_wheel(name, "1.0"), build_sdist(name, "1.0")
        mirrored.add(name, *files)
        mirrored.look = Look(**poverty)
        assert_delivers(server, name, files)
        has_sizes = mirrored.look.as_json and mirrored.look.sizes
        page = page_of(server, name).json
        assert page["meta"]["api-version"] == ("1.4" if has_sizes else "1.0"), poverty
        assert not has_sizes or all("size" in file for file in page["files"]), poverty


def test_what_an_html_page_says_is_passed_on(mirror: Mirror, mirrored: Mirrored) -> None:
    mirrored.look.as_json = False
    mirrored.add("demo", WHEEL, requires_python=">=3.8,<4", yanked="a & b")
    mirrored.add("demo", SDIST, yanked=True)
    files = {file["filename"]: file for file in page_of(mirror()).json["files"]}
    wheel, sdist = files[WHEEL.filename], files[SDIST.filename]
    assert (wheel["requires-python"], wheel["yanked"], sdist["yanked"]) == (">=3.8,<4", "a & b", True)
    assert wheel["core-metadata"].keys() == {"sha256"}


def test_hostile_entries_cost_only_themselves(mirror: Mirror, mirrored: Mirrored) -> None:
    """What is no file of the project on a web server is left out; the others are listed."""
    sha256 = {"sha256": WHEEL.sha256}
    hostile: list[dict[str, object]] = [
        {"filename": "demo-3.0.tar.gz", "url": "file:///etc/passwd", "hashes": sha256},
        {"filename": "demo-3.1.tar.gz", "url": "javascript:alert(1)", "hashes": sha256},
        {"filename": "../../demo-3.2.tar.gz", "url": "/files/demo/x", "hashes": sha256},
        {"filename": "other-1.0.tar.gz", "url": "/files/demo/x", "hashes": sha256},
        {"filename": "demo-3.3.tar.gz", "url": "/files/demo/x", "hashes": {"sha256": "../../../x"}},
        {"filename": "demo-3.4.tar.gz\n", "url": "/files/demo/x", "hashes": sha256},
        {"filename": 7},
    ]
    mirrored.look.extra = tuple(hostile)
    mirrored.add("demo", WHEEL, SDIST)
    assert_delivers(mirror())


def test_files_on_another_host(mirror: Mirror, mirrored: Mirrored, second: Mirrored) -> None:
    """They are fetched from there; the client learns of no other host."""
    mirrored.look.links = f"{second.root}/files/"
    for upstream in (mirrored, second):
        upstream.add("demo", WHEEL, SDIST)
    server = mirror()
    assert_delivers(server)
    assert (mirrored.count_files(WHEEL), second.count_files(WHEEL)) == (0, 1)
    assert second.root not in page_of(server).text + page_of(server, accept=HTML).text


# Redirects


def test_redirected_pages_and_files(mirror: Mirror, mirrored: Mirrored, second: Mirrored) -> None:
    """To another host too; relative links are those of the place where the page was found."""
    second.look.links = "../../files/"
    server = mirror()
    for status in (301, 302, 303, 307, 308):
        name = f"moved-{status}"
        wheel, sdist = build_wheel(name, "1.0"), build_sdist(name, "1.0")
        for upstream in (mirrored, second):
            upstream.add(name, wheel, sdist)
        page, file = f"/simple/{name}/", f"/files/{name}/{wheel.filename}"
        mirrored.spoil(page, status=status, headers={"Location": f"{second.root}/moved{page}"})
        second.spoil(f"/moved{file}", status=status, headers={"Location": f"{mirrored.root}{file}"})
        assert_delivers(server, name, (wheel, sdist))
        assert mirrored.count_files(wheel, name) == 1


def test_a_redirect_that_has_no_end(mirror: Mirror, mirrored: Mirrored) -> None:
    """A file's costs that file only."""
    mirrored.add("demo", WHEEL, SDIST)
    mirrored.spoil("/files/*.whl", status=302, headers={"Location": f"/files/demo/{WHEEL.filename}"})
    server = mirror()
    assert ask(server, url_of(WHEEL)).status in OUTAGE
    assert is_complete(ask(server, url_of(SDIST)))
    assert mirrored.count_files(WHEEL) < 30


# Credentials


def test_credentials_stay_with_their_host(mirror: Mirror, mirrored: Mirrored, second: Mirrored) -> None:
    """They come from the URL, go to its host alone, and stand in no page, header or log."""
    mirrored.credentials = ("user", SECRET)
    mirrored.look.links = f"{second.root}/files/"
    mirrored.add("demo", WHEEL, SDIST)
    second.add("demo", WHEEL, SDIST)
    server = mirror("-v", "--fallback-url", mirrored.url_for(QUOTED))
    assert_delivers(server)
    assert all("authorization" in request.headers for request in mirrored.requests)
    assert not any("authorization" in request.headers for request in second.requests)
    mirrored.spoil("*", status=500)
    seen = [page_of(server), page_of(server, accept=HTML), page_of(server, "other"), ask(server, url_of(WHEEL))]
    why = [ask(server, "/-/why/demo", accept=accept) for accept in (HTML, "application/json")]
    told = "".join(f"{answer.headers}{answer.reason}{answer.body!r}" for answer in [*seen, *why]) + server.log
    assert not re.search("pa:ss|pa%3Ass|ss@word|ss%40word", told)


def test_a_token_without_a_password(mirror: Mirror, mirrored: Mirrored) -> None:
    mirrored.credentials = ("token", "")
    mirrored.add("demo", WHEEL, SDIST)
    assert_delivers(mirror("--fallback-url", mirrored.url_for("token")))


def test_redirects_take_no_credentials_along(mirror: Mirror, mirrored: Mirrored, second: Mirrored) -> None:
    mirrored.credentials = ("user", SECRET)
    second.add("demo", WHEEL, SDIST)
    mirrored.spoil(PAGE, status=302, headers={"Location": f"{second.root}{PAGE}"})
    assert_delivers(mirror("--fallback-url", mirrored.url_for(QUOTED)))
    assert second.requests
    assert not any("authorization" in request.headers for request in second.requests)


def test_credentials_from_a_netrc(mirror: Mirror, mirrored: Mirrored, second: Mirrored, tmp_path: Path) -> None:
    """For the upstream's own address, and not for another port of the same machine."""
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine 127.0.0.1 login user password {SECRET}\n")
    netrc.chmod(0o600)
    mirrored.credentials = ("user", SECRET)
    mirrored.look.links = f"{second.root}/files/"
    mirrored.add("demo", WHEEL, SDIST)
    second.add("demo", WHEEL, SDIST)
    assert_delivers(mirror(env={"NETRC": str(netrc)}))
    assert not any("authorization" in request.headers for request in second.requests)


def test_wrong_credentials_are_an_outage(mirror: Mirror, mirrored: Mirrored) -> None:
    """Not 401 or 404 to the client, who could do nothing about it; the log names the cause."""
    mirrored.credentials = ("user", SECRET)
    mirrored.add("demo", WHEEL)
    server = mirror("--fallback-url", mirrored.url_for("user:wrong-word"))
    answer = page_of(server)
    assert has_failed(answer)
    assert "www-authenticate" not in answer.headers
    server.wait_for_log("credentials|401")
    assert "wrong-word" not in answer.text + server.log


def test_a_clients_own_headers_stay_here(mirror: Mirror, mirrored: Mirrored) -> None:
    """Its credentials and cookies are none of upstream's business."""
    mirrored.add("demo", WHEEL)
    server = mirror()
    words = {"authorization": "Basic dXNlcjpwYXNz", "cookie": "a=b", "x_forwarded_for": "192.0.2.1"}
    assert page_of(server, **words).status == 200
    assert ask(server, url_of(WHEEL), **words).status == 200
    for request in mirrored.requests:
        assert not {"authorization", "cookie", "x-forwarded-for", "referer"} & request.headers.keys()


def test_a_proxy_from_the_environment(mirror: Mirror, mirrored: Mirrored, second: Mirrored) -> None:
    """Everything goes through it, but for hosts that NO_PROXY names."""
    mirrored.add("demo", WHEEL, SDIST)
    second.add("direct", OTHER)
    config = (
        '[[upstream]]\nname = "near"\nurl = "http://mirror.example/simple/"\n'
        f'[[upstream]]\nname = "far"\nurl = "{second.url}"\n'
    )
    proxy = {"HTTP_PROXY": mirrored.root, "http_proxy": mirrored.root}
    server = mirror(config=config, env=proxy)
    assert_delivers(server)
    assert page_of(server, "direct").status == 200
    assert mirrored.requests[0].headers["host"] == "mirror.example"
    assert second.paths == ["/simple/direct/"]

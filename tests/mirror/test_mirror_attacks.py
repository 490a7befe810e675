"""Hostile clients and upstreams: other spellings of a withheld file, and code in what is said of it."""

import pytest

from tests.mirror.asking import HTML, JSON, ask, listed, url_of
from tests.mirror.conftest import Mirror
from tests.tools.distributions import build_sdist, build_wheel
from tests.tools.mirrored import Mirrored

WHEEL = build_wheel("demo", "1.0")
FILENAME, DIGEST = WHEEL.filename, WHEEL.sha256
CODE = "\"'><script>alert(1)</script>\r\nX-Evil: 1"

#: Ways to write the file's address, or something that might be taken for it.
SPELLINGS = (
    f"/packages/-/{DIGEST}/{FILENAME}",
    f"/packages/-/{DIGEST}/{FILENAME}.metadata",
    f"/packages/-/{DIGEST}/{FILENAME}%2Emetadata",
    f"/packages/-/{DIGEST}/{FILENAME.replace('-', '%2D')}",
    f"/packages/%2D/{DIGEST}/{FILENAME}",
    f"/packages/-%2F{DIGEST}%2F{FILENAME}",
    f"/packages/-/{DIGEST.upper()}/{FILENAME}",
    f"/packages/-/{DIGEST}/{FILENAME.title()}",
    f"/packages/-/{DIGEST}/{FILENAME}/",
    f"/packages/-/{DIGEST}/{FILENAME}%00",
    f"/packages/-/first-seen/{FILENAME}",
    f"/packages//-/{DIGEST}/{FILENAME}",
    f"/packages/./-/{DIGEST}/{FILENAME}",
    f"/packages/x/../-/{DIGEST}/{FILENAME}",
)
#: Ways to ask for it.
QUESTIONS: tuple[tuple[str, dict[str, str]], ...] = (
    ("GET", {}),
    ("HEAD", {}),
    ("GET", {"range": "bytes=0-5"}),
    ("GET", {"if_none_match": f'"{DIGEST}"'}),
    ("GET", {"if_none_match": "*"}),
)


@pytest.mark.parametrize(
    "rule",
    (
        'cooldown = "4d"',
        'deny = ["demo"]',
        'deny = ["demo==1.0"]',
        'allow = ["other"]',
        "freeze = 2021-01-01",
        "upstream = []",
    ),
)
def test_no_spelling_gets_around_a_rule(mirror: Mirror, mirrored: Mirrored, rule: str) -> None:
    """The bytes are here already, and the page is remembered."""
    mirrored.add("demo", WHEEL, upload_time="2999-01-01T00:00:00Z")
    before = mirror()
    assert ask(before, listed(before)[FILENAME]).body == WHEEL.content
    before.stop()
    server = mirror(config=f'[[policy]]\nprojects = ["*"]\n{rule}\n')
    for path in SPELLINGS:
        for method, headers in QUESTIONS:
            answer = ask(server, path, method=method, **headers)
            assert answer.status in {400, 403, 404}, (path, method, headers, answer)


def test_facts_are_no_code(mirror: Mirror, mirrored: Mirrored) -> None:
    """Whatever an upstream says of a file or a project stays text, on every page and in every header."""
    mirrored.add("demo", WHEEL, requires_python=f">=3{CODE}", yanked=CODE)
    mirrored.add("demo", build_sdist("demo", "2.0"), yanked=CODE)
    mirrored.set_status("demo", "archived", CODE)
    mirrored.add("closed", build_wheel("closed", "1.0"))
    mirrored.set_status("closed", "quarantined", CODE)
    server = mirror()
    withheld = url_of(build_wheel("closed", "1.0"))
    pages = ("/simple/demo/", "/project/demo/", "/-/why/demo", "/simple/closed/", "/-/why/closed", withheld)
    for path in pages:
        answer = ask(server, path, accept=HTML)
        assert answer.headers["content-type"].startswith(HTML)
        assert "alert(1)" in answer.text
        assert "<script>" not in answer.text
        assert "x-evil" not in answer.headers
        assert "script-src" not in answer.headers["content-security-policy"]
    assert ask(server, withheld).status == 403
    assert ask(server, "/simple/demo/", accept=JSON).json["project-status"]["status"] == "archived"

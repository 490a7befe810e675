"""What a client can see of one upstream file: every surface must give the same answer."""

import re
from collections.abc import Iterator
from typing import Any

from tests.mirror.asking import HTML, JSON, OUTAGE, Answer, ask, listed, page_of, url_of
from tests.tools.distributions import Distribution
from tests.tools.server import Server


def version_of(distribution: Distribution) -> str:
    return distribution.filename.removesuffix(".tar.gz").split("-")[1]


def explain(server: Server, distribution: Distribution, project: str = "demo") -> dict[str, Any]:
    """The file's entry of `/-/why/`, the same with the version and without."""
    paths = (f"/-/why/{project}", f"/-/why/{project}/{version_of(distribution)}")
    answers = [ask(server, path, accept="application/json") for path in paths]
    assert [answer.status for answer in answers] == [200, 200]
    found = [one for answer in answers for one in answer.json["files"] if one["filename"] == distribution.filename]
    assert len(found) == 2, answers
    assert found[0] == found[1]
    assert answers[0].json["project"] == project
    assert answers[0].json["decision"].keys() >= {"origin", "rule", "reason"}
    entry: dict[str, Any] = found[0]
    assert entry.keys() >= {"filename", "version", "offered", "rule", "reason", "until"}
    return entry


def is_in_json_api(server: Server, distribution: Distribution, project: str = "demo") -> bool:
    """Whether the JSON API of the project and of the version knows the file; both must agree."""
    whole, part = ask(server, f"/pypi/{project}/json"), ask(server, f"/pypi/{project}/{version_of(distribution)}/json")
    assert {whole.status, part.status} <= {200, 404}, (whole, part)
    filename = distribution.filename
    is_there = whole.status == 200 and any(
        one["filename"] == filename for files in whole.json.get("releases", {}).values() for one in files
    )
    is_in_version = part.status == 200 and any(one["filename"] == filename for one in part.json["urls"])
    assert is_there == is_in_version, (whole, part)
    return is_there


def direct_answers(server: Server, distribution: Distribution) -> Iterator[Answer]:
    """Every way to ask for the file by its URL."""
    url = url_of(distribution)
    yield ask(server, url)
    yield ask(server, url, method="HEAD")
    yield ask(server, url, range="bytes=0-9")
    yield ask(server, url, if_none_match=f'"{distribution.sha256}"')
    if distribution.filename.endswith(".whl"):
        yield ask(server, f"{url}.metadata")
        yield ask(server, f"{url}.metadata", method="HEAD")


def assert_offered(server: Server, distribution: Distribution, project: str = "demo") -> None:
    """On the page in both formats, by its URL, in the JSON API, and in the explanation."""
    assert listed(server, project).get(distribution.filename) == url_of(distribution)
    assert [answer.status for answer in direct_answers(server, distribution)][:4] == [200, 200, 206, 304]
    assert ask(server, url_of(distribution)).body == distribution.content
    assert is_in_json_api(server, distribution, project)
    entry = explain(server, distribution, project)
    assert (entry["offered"], entry["version"]) == (True, version_of(distribution))


def assert_withheld(server: Server, distribution: Distribution, words: str, project: str = "demo") -> dict[str, Any]:
    """Nowhere; its URLs answer 403 with a reason in which the words (a pattern) stand. The explanation is returned."""
    for accept in (JSON, HTML):
        page = page_of(server, project, accept=accept)
        assert page.status == 200
        assert distribution.filename not in page.text
        assert distribution.sha256 not in page.text
    assert_refused(server, distribution, words)
    assert not is_in_json_api(server, distribution, project)
    entry = explain(server, distribution, project)
    assert (entry["offered"], entry["version"]) == (False, version_of(distribution))
    assert entry["rule"]
    assert re.search(words, entry["reason"], re.IGNORECASE), entry
    return entry


def assert_refused(server: Server, distribution: Distribution, words: str) -> None:
    """403 on every URL of the file; the reason stands where pip and uv show it, and in the body."""
    for answer in direct_answers(server, distribution):
        assert answer.status == 403, answer
        assert answer.reason.isprintable()
        assert re.search(words, answer.reason, re.IGNORECASE), answer.reason
        assert answer.body == b"" or re.search(words, answer.text, re.IGNORECASE), answer.text
    assert ask(server, url_of(distribution)).body


def is_nowhere(server: Server, project: str) -> bool:
    """Whether no surface knows the project."""
    paths = (f"/simple/{project}/", f"/pypi/{project}/json", f"/{project}/json")
    answers = [ask(server, path, accept=accept) for path in paths for accept in (JSON, HTML)]
    assert not {answer.status for answer in answers} & OUTAGE
    return all(answer.status == 404 for answer in answers)

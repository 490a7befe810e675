"""Facts become the pages of the simple repository API, in HTML and in JSON."""

import gzip
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from html.parser import HTMLParser
from typing import Any

import pytest

from pypiserver_ng import pages
from pypiserver_ng.model import Digests, File, Kind, NormalizedName, Project

MOMENT = datetime(2024, 5, 6, 7, 8, 9, 1234, tzinfo=UTC)
PLAIN = File(
    id=1,
    root="r",
    path="demo-1.0.tar.gz",
    filename="demo-1.0.tar.gz",
    project=NormalizedName("demo"),
    display_name="Demo",
    version="1.0",
    kind=Kind.SDIST,
    size=12,
    mtime_ns=0,
    digests=Digests("a" * 64, "b" * 32, "c" * 64),
    upload_time=MOMENT,
)
WHEEL = replace(
    PLAIN,
    path='sub/a b&"#?%é/demo-2.0-py3-none-any.whl',
    filename="demo-2.0-py3-none-any.whl",
    version="2.0",
    kind=Kind.WHEEL,
    requires_python='>=3.8,<"4"&',
    metadata_sha256="d" * 64,
    has_signature=True,
    yanked=True,
    yanked_reason='broken: <b> & "q"',
)
PROJECT = Project(
    NormalizedName("demo"), "Demo", 7, (PLAIN, WHEEL, replace(PLAIN, filename="demo-2.0.zip", version="2.0"))
)


class Anchors(HTMLParser):
    """The page's links and its meta elements, as a client reads them."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.links: list[dict[str, str | None]] = []
        self.texts: list[str] = []
        self.meta: dict[str | None, str | None] = {}
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.links.append(dict(attrs))
            self.texts.append("")
        elif tag == "meta":
            found = dict(attrs)
            self.meta[found.get("name")] = found.get("content")

    def handle_data(self, data: str) -> None:
        if self.texts and data.strip():
            self.texts[-1] += data


def read_json(project: Project) -> Any:
    return json.loads(pages.render_project(project, pages.JSON_TYPE))


def test_the_json_page() -> None:
    """PEP 691 and 700: every key that has a fact, and no other."""
    page = read_json(PROJECT)
    assert (page["meta"], page["name"], page["versions"]) == ({"api-version": "1.4"}, "demo", ["1.0", "2.0"])
    assert page["files"][0] == {
        "filename": "demo-1.0.tar.gz",
        "url": "../../packages/demo-1.0.tar.gz",
        "hashes": {"sha256": "a" * 64},
        "size": 12,
        "upload-time": "2024-05-06T07:08:09.001234Z",
        "core-metadata": False,
        "yanked": False,
    }
    wheel = page["files"][1]
    assert wheel["url"] == "../../packages/sub/a%20b%26%22%23%3F%25%C3%A9/demo-2.0-py3-none-any.whl"
    assert wheel["core-metadata"] == {"sha256": "d" * 64}
    assert (wheel["requires-python"], wheel["yanked"], wheel["gpg-sig"]) == (
        WHEEL.requires_python,
        WHEEL.yanked_reason,
        True,
    )


def test_a_file_yanked_without_a_reason() -> None:
    """JSON says true, HTML has an empty attribute: both are "yanked"."""
    project = replace(PROJECT, files=(replace(PLAIN, yanked=True),))
    assert read_json(project)["files"][0]["yanked"] is True
    assert Anchors(pages.render_project(project, pages.HTML_TYPE)).links[0]["data-yanked"] == ""


def test_the_html_page_says_what_the_json_page_says() -> None:
    """PEP 503, 592, 658 and 714, with every value escaped."""
    html = Anchors(pages.render_project(PROJECT, pages.HTML_TYPE))
    assert html.meta["pypi:repository-version"] == "1.4"
    assert html.texts == [file.filename for file in PROJECT.files]
    assert html.links[0] == {"href": f"../../packages/demo-1.0.tar.gz#sha256={'a' * 64}"}
    wheel = html.links[1]
    assert wheel == {
        "href": f"{read_json(PROJECT)['files'][1]['url']}#sha256={'a' * 64}",
        "data-requires-python": WHEEL.requires_python,
        "data-core-metadata": f"sha256={'d' * 64}",
        "data-gpg-sig": "true",
        "data-yanked": WHEEL.yanked_reason,
    }


def test_the_list_of_projects() -> None:
    """The same names in both, linked to their pages."""
    names = [NormalizedName(name) for name in ("a", "b-c")]
    page = json.loads(pages.render_root(names, pages.JSON_TYPE))
    assert page == {"meta": {"api-version": "1.4"}, "projects": [{"name": "a"}, {"name": "b-c"}]}
    html = Anchors(pages.render_root(names, pages.HTML_TYPE))
    assert (html.texts, [link["href"] for link in html.links]) == (["a", "b-c"], ["a/", "b-c/"])


def test_a_page_without_files() -> None:
    """An empty index is a valid one."""
    assert json.loads(pages.render_root([], pages.JSON_TYPE))["projects"] == []
    assert Anchors(pages.render_root([], pages.HTML_TYPE)).links == []


def test_a_file_without_a_version_adds_none() -> None:
    """PEP 700: `versions` holds versions only."""
    assert read_json(replace(PROJECT, files=(replace(PLAIN, version=""),)))["versions"] == []


MOMENTS = (
    (datetime(2024, 1, 2, tzinfo=UTC), "2024-01-02T00:00:00.000000Z"),
    (datetime(2024, 1, 2, 3, 4, 5, 6, timezone(timedelta(hours=3))), "2024-01-02T00:04:05.000006Z"),
)


@pytest.mark.parametrize(("moment", "text"), MOMENTS)
def test_an_upload_time(moment: datetime, text: str) -> None:
    """In UTC, with six digits, whatever its zone."""
    assert pages.format_time(moment) == text


# Bodies.


@pytest.mark.parametrize("media_type", pages.MEDIA_TYPES)
@pytest.mark.parametrize("coding", (pages.IDENTITY, pages.GZIP))
def test_a_body(media_type: str, coding: str) -> None:
    """Its headers say what it is and how long it is; a 304 repeats only what a cache has to learn."""
    content = pages.render_project(PROJECT, media_type)
    body = pages.make_body(content, media_type, coding, private=False)
    headers = dict(body.headers)
    assert (gzip.decompress(body.content) if b"content-encoding" in headers else body.content) == content
    assert headers[b"content-length"] == b"%d" % len(body.content)
    assert headers[b"content-type"].startswith(media_type.encode())
    assert (headers[b"etag"], headers[b"vary"]) == (body.etag, b"Accept, Accept-Encoding")
    assert headers[b"cache-control"] == b"no-cache"
    assert {name for name, _ in body.not_modified} == {b"etag", b"cache-control", b"vary"}


def test_every_representation_has_its_own_etag() -> None:
    """A strong validator differs where the bytes do, and is the same where they are."""
    bodies = [
        pages.make_body(pages.render_project(PROJECT, media), media, coding, private=False)
        for media in pages.MEDIA_TYPES
        for coding in (pages.IDENTITY, pages.GZIP)
    ]
    assert len({body.etag for body in bodies}) == len(bodies)
    again = pages.make_body(
        pages.render_project(PROJECT, pages.JSON_TYPE), pages.JSON_TYPE, pages.IDENTITY, private=False
    )
    assert again == bodies[0]


def test_a_tiny_page_stays_as_it_is() -> None:
    """Compression would make it longer; then both codings are one representation."""
    small = pages.make_body(b"{}", pages.JSON_TYPE, pages.GZIP, private=False)
    assert small == pages.make_body(b"{}", pages.JSON_TYPE, pages.IDENTITY, private=False)
    assert b"content-encoding" not in dict(small.headers)


def test_a_private_page_is_kept_by_its_reader_only() -> None:
    """No shared cache may give it to somebody else."""
    body = pages.make_body(b"{}", pages.JSON_TYPE, pages.IDENTITY, private=True)
    assert dict(body.headers)[b"cache-control"] == dict(body.not_modified)[b"cache-control"] == b"private, no-cache"

"""What other indexes answer becomes a page: lenient where real ones are, closed where hostile ones are."""

import json
import sys
import threading
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from pypiserver_ng.errors import UpstreamFailed
from pypiserver_ng.model import Kind, NormalizedName, Status, UpstreamFile, UpstreamPage
from pypiserver_ng.upstream.addresses import clean_url
from pypiserver_ng.upstream.parsing import MOST_FILES, RawPage, parse_page

NAME = NormalizedName("big-project")
URL = "https://mirror.example/simple/big-project/"
JSON = "application/vnd.pypi.simple.v1+json"
HEX = "ab" * 32
WHEEL = "big_project-1.0-py3-none-any.whl"
SDIST = "big_project-1.0.tar.gz"


def parse(content: str | bytes, content_type: str = "text/html", url: str = URL) -> UpstreamPage:
    content = content.encode(errors="surrogatepass") if isinstance(content, str) else content
    return parse_page(RawPage(content, content_type, url), NAME)


def parse_files(*files: object, **page: Any) -> UpstreamPage:
    facts = {name.replace("_", "-"): value for name, value in page.items()}
    return parse(json.dumps({"meta": {"api-version": "1.1"}, "name": NAME, "files": files, **facts}), JSON)


def entry(filename: str = WHEEL, **fields: Any) -> dict[str, Any]:
    fields = {name.replace("_", "-"): value for name, value in fields.items()}
    return {"filename": filename, "url": f"https://files.example/{filename}", "hashes": {}, **fields}


def parse_entry(**fields: Any) -> UpstreamFile | None:
    """What becomes of one entry; its page must live on."""
    files = {file.filename: file for file in parse_files(entry(**fields), entry(SDIST)).files}
    assert SDIST in files
    return files.get(WHEEL)


def parse_anchor(attributes: str) -> UpstreamFile | None:
    page = parse(f'<a href="{SDIST}">x</a>\n<a {attributes}>{WHEEL}</a>')
    files = {file.filename: file for file in page.files}
    assert SDIST in files
    del files[SDIST]
    return next(iter(files.values()), None)


def fault(content: str | bytes, content_type: str = "text/html") -> str:
    with pytest.raises(UpstreamFailed) as raised:
        parse(content, content_type)
    message = raised.value.message
    assert message.startswith("mirror.example answered with no project's page: ")
    assert "\n" not in message
    return message


# Both forms, whole.


def test_a_whole_json_page() -> None:
    """Everything that the format can say of a file and a project."""
    page = parse_files(
        entry(
            hashes={"sha256": HEX.upper(), "md5": "0" * 32},
            requires_python=">=3.8",
            size=12,
            upload_time="2024-01-02T03:04:05.123456Z",
            yanked="broken",
            core_metadata={"sha256": HEX},
            gpg_sig=True,
            provenance="https://mirror.example/integrity/x",
        ),
        entry(SDIST, hashes={"md5": "0" * 32, "sha512": "1" * 128}),
        project_status={"status": "deprecated", "reason": "use\nanother"},
    )
    wheel, sdist = page.files
    assert wheel == UpstreamFile(
        filename=WHEEL,
        project=NAME,
        display_name="big_project",
        version="1.0",
        kind=Kind.WHEEL,
        url=f"https://files.example/{WHEEL}",
        sha256=HEX,
        size=12,
        upload_time=datetime(2024, 1, 2, 3, 4, 5, 123456, UTC),
        requires_python=">=3.8",
        metadata_sha256=HEX,
        yanked=True,
        yanked_reason="broken",
        has_signature=True,
        provenance_url="https://mirror.example/integrity/x",
    )
    assert (sdist.kind, sdist.sha256, sdist.other_digest) == (Kind.SDIST, None, f"sha512={'1' * 128}")
    assert (page.status, page.status_reason) == (Status.DEPRECATED, "use?another")


def test_a_whole_html_page() -> None:
    """The same, with entities, a base, a query, and the attribute that only intermediaries have."""
    page = parse(
        f"""<!DOCTYPE html><html><head><base href="/files/"><base href="https://evil.example/">
        <meta name="pypi:project-status" content="archived"><meta name="pypi:project-status-reason" content="done">
        <title>Links for big-project</title></head><body><h1>Links for big-project</h1>
        <a href="../{WHEEL}?a=1&amp;b=2#sha256={HEX}&amp;egg=x" data-requires-python="&gt;=3.8" data-yanked=""
           data-core-metadata="sha256={HEX}" data-gpg-sig="true" data-provenance="/integrity/x"
           data-upload-time="2024-01-02T03:04:05Z">{WHEEL}</a><br>
        <a href="big%5Fproject-1.0.tar.gz#md5={"0" * 32}" data-dist-info-metadata=true>x</a>
        </body></html>""",
    )
    wheel, sdist = page.files
    assert wheel == UpstreamFile(
        filename=WHEEL,
        project=NAME,
        display_name="big_project",
        version="1.0",
        kind=Kind.WHEEL,
        url=f"https://mirror.example/{WHEEL}?a=1&b=2",
        sha256=HEX,
        upload_time=datetime(2024, 1, 2, 3, 4, 5, 0, UTC),
        requires_python=">=3.8",
        metadata_sha256=HEX,
        yanked=True,
        has_signature=True,
        provenance_url="https://mirror.example/integrity/x",
    )
    assert (sdist.filename, sdist.url) == (SDIST, "https://mirror.example/files/big%5Fproject-1.0.tar.gz")
    assert (sdist.other_digest, sdist.metadata_sha256) == (f"md5={'0' * 32}", "")
    assert (page.status, page.status_reason) == (Status.ARCHIVED, "done")


# One field each: (what is given, the field, what becomes of it).

FIELDS: tuple[tuple[dict[str, Any], str, object], ...] = (
    ({"size": True}, "size", None),
    ({"size": -1}, "size", None),
    ({"size": 0}, "size", 0),
    ({"size": 2**53}, "size", None),
    ({"size": "12"}, "size", None),
    ({"size": 1.5}, "size", None),
    ({"hashes": None}, "sha256", None),
    ({"hashes": {"sha256": ""}}, "sha256", None),
    ({"hashes": {"sha256": None}}, "sha256", None),
    ({"hashes": {"sha384": "1" * 96, "md5": "0" * 32}}, "other_digest", f"sha384={'1' * 96}"),
    ({"hashes": {"blake2b_256": "A" * 64}}, "other_digest", f"blake2b_256={'a' * 64}"),
    ({"hashes": {"sha224": "1" * 56}}, "other_digest", f"sha224={'1' * 56}"),
    ({"hashes": {"md5": "1"}}, "other_digest", None),
    ({"hashes": {"md5": 1, "crc32": "1"}}, "other_digest", None),
    ({"yanked": False}, "yanked", False),
    ({"yanked": True}, "yanked", True),
    ({"yanked": ""}, "yanked", False),
    ({"yanked": None}, "yanked", False),
    ({"yanked": "x" * 2000}, "yanked_reason", "x" * 1000),
    ({"yanked": "a\0\u202eb"}, "yanked_reason", "a??b"),
    ({"requires_python": None}, "requires_python", None),
    ({"requires_python": ""}, "requires_python", None),
    ({"requires_python": " "}, "requires_python", None),
    ({"requires_python": ">=3.8.*"}, "requires_python", ">=3.8.*"),
    ({"core_metadata": True}, "metadata_sha256", ""),
    ({"core_metadata": False, "dist_info_metadata": True}, "metadata_sha256", None),
    ({"core_metadata": {}}, "metadata_sha256", ""),
    ({"core_metadata": {"sha256": "x"}}, "metadata_sha256", None),
    ({"core_metadata": "x"}, "metadata_sha256", None),
    ({"dist_info_metadata": {"sha256": HEX}, "data_dist_info_metadata": True}, "metadata_sha256", HEX),
    ({"data_dist_info_metadata": {"md5": "x"}}, "metadata_sha256", ""),
    ({"upload_time": "2024-01-02T03:04:05Z"}, "upload_time", datetime(2024, 1, 2, 3, 4, 5, 0, UTC)),
    ({"upload_time": "2024-01-02T03:04:05+02:00"}, "upload_time", datetime(2024, 1, 2, 1, 4, 5, 0, UTC)),
    ({"upload_time": "2024-01-02 03:04:05"}, "upload_time", datetime(2024, 1, 2, 3, 4, 5, 0, UTC)),
    ({"upload_time": "2024-01-02"}, "upload_time", None),
    ({"upload_time": "0001-01-01T00:00:00+10:00"}, "upload_time", None),
    ({"upload_time": "yesterday"}, "upload_time", None),
    ({"upload_time": 1700000000}, "upload_time", None),
    ({"gpg_sig": "true"}, "has_signature", False),
    ({"provenance": "javascript:alert(1)"}, "provenance_url", None),
    ({"provenance": 1}, "provenance_url", None),
    ({"provenance": ""}, "provenance_url", None),
    ({"url": "../../x.whl"}, "url", "https://mirror.example/x.whl"),
    ({"url": "//other.example/x.whl"}, "url", "https://other.example/x.whl"),
    ({"url": "https://user:secret@other.example/x.whl#egg=x"}, "url", "https://other.example/x.whl"),
    ({"unknown": {"deep": [1]}}, "filename", WHEEL),
)


@pytest.mark.parametrize(("given", "field", "expected"), FIELDS)
def test_a_field_is_read(given: dict[str, Any], field: str, expected: object) -> None:
    """Each as far as it can be trusted; what is malformed without harm is absent."""
    file = parse_entry(**given)
    assert file is not None
    assert getattr(file, field) == expected


DROPPED: tuple[dict[str, Any], ...] = (
    {"hashes": {"sha256": "x"}},
    {"hashes": {"sha256": "g" * 64}},
    {"hashes": {"sha256": 1}},
    {"hashes": {"sha256": HEX + "\n"}},
    {"hashes": []},
    {"requires_python": ">=3,\n<4"},
    {"requires_python": "x" * 1025},
    {"requires_python": 3},
    {"yanked": {}},
    {"url": 1},
    {"url": None},
    {"url": "javascript:alert(1)"},
    {"url": "file:///etc/passwd"},
    {"url": "https://[::1/x"},
    {"url": "https://host:99999/x"},
    {"url": "https://h\u00e9st.example/x"},
    {"url": "https://host.example/a\nb"},
    {"url": f"https://host.example/{'x' * 8192}"},
    {"url": "\u00e9" * 3000},
)


@pytest.mark.parametrize("given", DROPPED)
def test_a_dangerous_entry_costs_itself(given: dict[str, Any]) -> None:
    """A hash that is none, a Python version that nobody can read, a URL that leads nowhere."""
    assert parse_entry(**given) is None


@pytest.mark.parametrize(
    "filename",
    (
        "other-1.0.tar.gz",
        "big_project-1.0.txt",
        f"{WHEEL}.asc",
        f"../{SDIST}",
        f"..\\{SDIST}",
        f"a/{SDIST}",
        f".{SDIST}",
        f"{SDIST[:-7]}\0.tar.gz",
        f"{SDIST[:-7]}\n.tar.gz",
        f"{SDIST[:-7]}\u202e.tar.gz",
        f"big_project-1.0{'0' * 240}.tar.gz",
        f"big_project-1.0{'é' * 120}.tar.gz",
        "",
    ),
)
def test_a_name_that_is_not_the_projects_costs_its_entry(filename: str) -> None:
    """Other projects, paths, control characters, too long ones, signatures."""
    assert [file.filename for file in parse_files(entry(filename), entry(SDIST)).files] == [SDIST]


@pytest.mark.parametrize("item", ("1", "null", "[]", "{}", '"x"', "[" * 900 + "]" * 900))
def test_an_entry_that_is_no_file_costs_itself(item: str) -> None:
    """Whatever JSON it is."""
    page = parse(f'{{"files": [{item}, {json.dumps(entry(SDIST))}]}}', JSON)
    assert [file.filename for file in page.files] == [SDIST]


def test_of_duplicates_the_first_with_a_hash_stays() -> None:
    """In the place of the first."""
    page = parse_files(
        entry(size=1),
        entry(SDIST),
        entry(size=2, hashes={"sha256": HEX}),
        entry(size=3, hashes={"sha256": "0" * 64}),
    )
    assert [(file.filename, file.size) for file in page.files] == [(WHEEL, 2), (SDIST, None)]


@pytest.mark.parametrize(
    ("attributes", "field", "expected"),
    (
        (f"HREF={WHEEL} data-yanked", "yanked", True),
        (f'href="{WHEEL}" data-yanked="&lt;old&gt;"', "yanked_reason", "<old>"),
        (f'href="{WHEEL}" data-dist-info-metadata="false"', "metadata_sha256", None),
        (f'href="{WHEEL}" data-core-metadata="md5=1"', "metadata_sha256", ""),
        (f'href="{WHEEL}" data-core-metadata="sha256=1"', "metadata_sha256", None),
        (f'href="{WHEEL}" href="other.whl"', "url", f"{URL}{WHEEL}"),
        (f'href=" {WHEEL}#SHA256={HEX} "', "sha256", HEX),
        (f'href="{WHEEL}#egg=x&sha256={HEX}&sha256=0"', "sha256", HEX),
        (f'href="{WHEEL}" data-gpg-sig="false"', "has_signature", False),
        (f'href="https://user:secret@h.example/{WHEEL}"', "url", f"https://h.example/{WHEEL}"),
        (f'href="/a/../../{WHEEL}"', "url", f"https://mirror.example/{WHEEL}"),
        (f'href="{WHEEL}" data-upload-time="soon" {"x " * 9000}', "upload_time", None),
    ),
)
def test_an_anchor_is_read(attributes: str, field: str, expected: object) -> None:
    """As browsers and pip read it."""
    file = parse_anchor(attributes)
    assert file is not None
    assert getattr(file, field) == expected


@pytest.mark.parametrize(
    "attributes",
    (
        f'href="{WHEEL}#sha256=1"',
        f'href="javascript:x/{WHEEL}"',
        f'href="file:///{WHEEL}"',
        f'href="..%2f{WHEEL}"',
        'href="big_project-1.0%ff.zip"',
        f'href="{WHEEL}%00"',
        f'href="{WHEEL}/"',
        f'name="{WHEEL}"',
        "href",
    ),
)
def test_an_anchor_that_leads_nowhere_costs_itself(attributes: str) -> None:
    """A hash that is none, another scheme, a path in the name."""
    assert parse_anchor(attributes) is None


@pytest.mark.parametrize(
    ("link", "expected"),
    (
        ("https://h.example//x/y", "https://h.example//x/y"),
        ("https://h.example//../x", "https://h.example/x"),
        ("https://h.example/a/./b/..", "https://h.example/a/"),
        ("https://h.example", "https://h.example"),
        ("HTTPS://H.example:8443/a b?c d", "https://h.example:8443/a%20b?c%20d"),
        ("https://h.example/%41%zz", "https://h.example/%41%zz"),
        ("http://[::1]:80/x", "http://[::1]:80/x"),
        ("https://h.example:0/", None),
        ("https://../x", None),
        ("http:x", None),
    ),
)
def test_a_url_keeps_its_host(link: str, expected: str | None) -> None:
    """Whatever its path is like."""
    assert clean_url(link, URL) == expected


# Pages that are none, and empty ones.

EMPTY = (
    "<!DOCTYPE html><html><head><title>Links for big-project</title></head><body></body></html>",
    "<html><body><h1>Links for Big.Project</h1></body></html>",
    "<html><head><title>Big_Project</title></head><body>nothing</body></html>",
    '<html><head><meta name="pypi:repository-version" content="1.0"></head><body>nothing</body></html>',
    '<html><head><title>Index of /simple/x/</title></head><body><a href="../">../</a></body></html>',
    "<html><body>\n</body></html>",
    "<html><head><style>a { color: red }</style></head><body></body></html>",
)


@pytest.mark.parametrize("text", EMPTY)
def test_a_project_may_have_no_files(text: str) -> None:
    """An index that says so is believed."""
    assert parse(text).files == ()


@pytest.mark.parametrize(
    "text",
    (
        "<html><title>Links for x</title><form action=/login><input name=user></form></html>",
        "<html><title>Sign in</title><body>Please <a href=/login>sign in</a></body></html>",
        '<html><head><script src="app.js"></script></head><body><div id=app></div></body></html>',
        "<html><body>Service temporarily unavailable</body></html>",
        "It works!",
    ),
)
def test_a_page_of_other_things_is_no_project_without_files(text: str) -> None:
    """A login page, a landing page, an error with status 200."""
    assert fault(text)


def test_a_page_with_files_may_hold_a_form() -> None:
    """A search field, for instance."""
    assert len(parse(f"<form><input></form><a href={WHEEL}>x</a>").files) == 1


@pytest.mark.parametrize(
    ("content", "content_type", "said"),
    (
        ('{"files": 1}', JSON, "lists no files"),
        ('{"message": "Not Found"}', JSON, "lists no files"),
        ('{"projects": []}', JSON, "lists no files"),
        ('{"files": [', JSON, "cannot be read"),
        ('{"files": []} x', JSON, "cannot be read"),
        (b'{"files": [\xff]}', JSON, "cannot be read"),
        ('{"files": [{"filename": "\\ud800"}]}', JSON, "cannot be read"),
        ('{"a": ' + "[" * 200_000, JSON, "cannot be read"),
        ('{"files": [], "meta": {"api-version": "2.0"}}', JSON, "another version"),
        ('{"files": [], "meta": {"api-version": [1]}}', JSON, "another version"),
        ('{"files": [' + "1," * 2_600_000 + "1]}", JSON, "too much"),
        ('{"files": [' + "1," * MOST_FILES + "1]}", JSON, "more than"),
        ("<a href=x-1.0.zip>" * (MOST_FILES + 1), "text/html", "more than"),
        ("[]", JSON, "neither"),
        ("", JSON, "empty"),
        (f"<a href={WHEEL}>", "text/plain", "neither"),
        ("<!--" + "x" * 300_000, "text/html", "longer than"),
        ("<a " + "x " * 300_000 + f"href={WHEEL}>", "text/html", "longer than"),
        ("<!--" * 300_000, "text/html", "longer than"),
        ("<![x[ a ]>", "text/html", "cannot be read"),
        (f"<a href='&#{'9' * 5000};'>", "text/html", "cannot be read"),
    ),
)
def test_what_is_no_page_is_said(content: str | bytes, content_type: str, said: str) -> None:
    """In one line, however deep, long or broken it is."""
    assert said in fault(content, content_type)


@pytest.mark.parametrize(
    ("content", "content_type"),
    (
        (json.dumps({"files": [entry()]}), "application/json; charset=utf-8"),
        (json.dumps({"files": [entry()], "meta": {"api-version": 1.0}}), "text/html"),
        ("\ufeff " + json.dumps({"files": [entry()], "meta": None, "project-status": "quarantined"}), "text/plain"),
        (f"\ufeff<a href={WHEEL}>x</a>", "text/html; charset=punycode"),
        (f"<a href={WHEEL}>\xff</a>".encode("latin-1"), "TEXT/HTML"),
        (f"<a href={WHEEL}>x\0</a>", "application/vnd.pypi.simple.v1+html"),
        (f"<a href={WHEEL}>x</a>", ""),
        (f"<a href={WHEEL}>x</a><!-- unfinished", "text/html"),
    ),
)
def test_types_and_charsets_are_taken_as_they_come(content: str | bytes, content_type: str) -> None:
    """The body decides, and all that matters in it is ASCII."""
    assert [file.filename for file in parse(content, content_type).files] == [WHEEL]


@pytest.mark.parametrize(
    ("given", "status"),
    (
        ({"status": "Quarantined"}, Status.QUARANTINED),
        ("archived", Status.ARCHIVED),
        ("unheard-of", Status.ACTIVE),
        ({"status": 1, "reason": []}, Status.ACTIVE),
        ([], Status.ACTIVE),
        ({"status": "archived", "reason": "x" * 70_000}, Status.ACTIVE),
    ),
)
def test_a_status_is_read(given: object, status: Status) -> None:
    """As text or as an object; what nobody knows is no status."""
    assert parse_files(project_status=given).status is status


@pytest.mark.parametrize("form", ("json", "html"))
def test_other_threads_run_while_a_page_is_read(form: str) -> None:
    """Eleven thousand files are many small steps: another thread gets its turn all the time."""
    names = [f"big_project-{number}.0-py3-none-any.whl" for number in range(11_000)]
    if form == "json":
        content = json.dumps({"files": [entry(name, hashes={"sha256": HEX}) for name in names]})
    else:
        content = "\n".join(f'<a href="https://files.example/{name}#sha256={HEX}">{name}</a>' for name in names)
    turns = 0
    finished = threading.Event()

    def count() -> None:
        nonlocal turns
        while not finished.is_set():
            turns += 1
            time.sleep(0)

    other = threading.Thread(target=count)
    switching = sys.getswitchinterval()
    sys.setswitchinterval(0.001)
    other.start()
    try:
        page = parse(content, JSON if form == "json" else "text/html")
    finally:
        finished.set()
        other.join()
        sys.setswitchinterval(switching)
    assert len(page.files) == len(names)
    assert turns > 10

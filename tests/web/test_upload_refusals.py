"""Forms that are wrong: each is refused in one line, and leaves nothing behind."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.tools.distributions import Distribution, build_sdist, build_wheel
from tests.tools.uploads import upload_fields
from tests.web.forms import BOUNDARY, assert_refused, encode, header, part, send, upload_form

WHEEL = build_wheel("Demo.Pkg", "1.0")
SDIST = build_sdist("Demo.Pkg", "1.0")
CONTENT = part("content", WHEEL.content, WHEEL.filename)

#: Changes of a right form that make it wrong, and what the answer says.
WRONG_FIELDS: list[tuple[dict[str, str | None], str]] = [
    ({"action": None}, "':action' is missing"),
    ({"action": ""}, "':action' is missing"),
    ({"action": "user"}, "'user' is not known"),
    ({"action": "<script>\u2028\x1b[0m"}, "is not known"),
    ({"protocol_version": "2"}, "protocol_version"),
    ({"name": "other"}, "the form says project 'other'"),
    ({"name": "Demo.Pkg2"}, "the form says project"),
    ({"version": "1.1"}, "the form says version '1.1'"),
    ({"version": "1.0.post1"}, "the form says version"),
    ({"version": "one"}, "the form says version"),
    ({"version": "9" * 5000}, "the form says version"),
    ({"filetype": "sdist"}, "the form says filetype 'sdist'"),
    ({"filetype": "bdist_egg"}, "the form says filetype"),
    ({"sha256_digest": "0" * 64}, "sha256_digest does not match"),
    ({"sha256_digest": SDIST.sha256}, "sha256_digest does not match"),
    ({"sha256_digest": WHEEL.sha256[:-1]}, "sha256_digest does not match"),
    ({"sha256_digest": "\u00e9"}, "sha256_digest does not match"),
    ({"md5_digest": "0" * 32}, "md5_digest does not match"),
    ({"blake2_256_digest": "0" * 64}, "blake2_256_digest does not match"),
    ({"name": "x" * 70_000}, "longer than"),
]
HOSTILE_FILENAMES: list[str | bytes] = [
    "",
    ".",
    "..",
    ".whl",
    "../demo_pkg-1.0-py3-none-any.whl",
    "../../../../etc/cron.d/demo_pkg-1.0-py3-none-any.whl",
    "/etc/passwd",
    "/demo_pkg-1.0-py3-none-any.whl",
    "sub/demo_pkg-1.0-py3-none-any.whl",
    "sub\\demo_pkg-1.0-py3-none-any.whl",
    "..\\demo_pkg-1.0-py3-none-any.whl",
    ".demo_pkg-1.0-py3-none-any.whl",
    ".pypiserver-ng/serial",
    "demo_pkg-1.0-py3-none-any.whl\0",
    "demo_pkg-1.0-py3-none-any.whl\0.txt",
    "demo_pkg-1.0-py3-none-any.whl\n",
    "demo_pkg-1.0\n-py3-none-any.whl",
    "demo_pkg-1.0-py3-none-any.whl\r\nx: y",
    "demo_pkg-1.0-py3-none-any.whl ",
    " demo_pkg-1.0-py3-none-any.whl",
    "demo_pkg-1.0-py3-none-any.WHL",
    "demo_pkg-1.0-py3-none-any.whl.asc",
    "demo_pkg-1.0-py3-none-any.whl.metadata",
    "demo_pkg-1.0.py3-none-any.whl",
    "demo_pkg-1.0-py3-none-any-x-y-z.whl",
    "demo_pkg-1.0-x-py3-none-any.whl",
    "demo_pkg-1.00-py3-none-any.whl",
    "demo_pkg-one-py3-none-any.whl",
    "demo\u2010pkg-1.0-py3-none-any.whl",
    "d\u00e9mo_pkg-1.0-py3-none-any.whl",
    "\u212aelvin-1.0-py3-none-any.whl",
    "%2e%2e%2fdemo_pkg-1.0-py3-none-any.whl",
    "demo_pkg-1.0-py3-none-any.exe",
    "demo_pkg-1.0.exe",
    "demo_pkg-1.0-py3.11.egg",
    "demo_pkg-1.0.tar.bz2",
    "demo_pkg-1.0.tgz",
    "demo_pkg-1.0.TAR.GZ",
    "demo-pkg-1.0.tar.gz",
    "Demo_Pkg-1.0.tar.gz",
    "demo_pkg.tar.gz",
    "demo_pkg-1.0",
    "index.html",
    "con",
    "demo_pkg-1.0-py3-none-any.whl" + "x" * 300 + ".whl",
    "x" * 300 + "-1.0.tar.gz",
    "d" * 4000 + "-1.0.tar.gz",
    b"demo_pkg-1.0\xff-py3-none-any.whl",
    b"\xc0\xae\xc0\xae/demo_pkg-1.0-py3-none-any.whl",
]


def rename(distribution: Distribution, filename: str) -> Distribution:
    return Distribution(filename, distribution.content)


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(("changes", "says"), WRONG_FIELDS)
@pytest.mark.parametrize("file_first", (False, True))
def test_wrong_field(client: TestClient, changes: dict[str, str | None], says: str, file_first: bool) -> None:
    """Form, filename and bytes have to agree; the answer names what does not."""
    parts = [part(*field) for field in upload_fields(WHEEL, **changes).items()]
    body = encode([CONTENT, *parts] if file_first else [*parts, CONTENT])
    assert_refused(send(client, body), 400, says)


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("filename", HOSTILE_FILENAMES)
def test_hostile_filename(client: TestClient, packages: Path, filename: str | bytes) -> None:
    """A filename is taken only if it is the one name of a wheel or sdist."""
    fields = upload_fields(WHEEL, name=None, version=None, filetype=None)
    content = part("content", WHEEL.content, filename)
    assert_refused(send(client, encode([*(part(*field) for field in fields.items()), content])), 400, "")
    assert [packages] == [path for path in packages.parent.iterdir() if path.name != "home"]


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    "distribution",
    (
        rename(WHEEL, "demo_pkg-2.0-py3-none-any.whl"),
        rename(WHEEL, "other-1.0-py3-none-any.whl"),
        rename(WHEEL, "demo_pkg-1.0.zip"),
        rename(WHEEL, "demo_pkg-1.0.tar.gz"),
        rename(SDIST, "demo_pkg-1.0-py3-none-any.whl"),
        rename(SDIST, "demo_pkg-2.0.tar.gz"),
        rename(SDIST, "demo_pkg-1.0.zip"),
        Distribution(WHEEL.filename, b""),
        Distribution(WHEEL.filename, b"\0" * 10_000),
        Distribution(WHEEL.filename, random.Random(1).randbytes(10_000)),
        Distribution(WHEEL.filename, WHEEL.content[:-30]),
        Distribution(WHEEL.filename, WHEEL.content + b"more"),
        Distribution(WHEEL.filename, b"#!/bin/sh\n" + WHEEL.content),
        Distribution(WHEEL.filename, b"<html></html>"),
        Distribution(SDIST.filename, SDIST.content[:-8]),
        Distribution(SDIST.filename, b"\x1f\x8b" + b"\0" * 100),
    ),
    ids=lambda distribution: f"{distribution.filename}-{len(distribution.content)}",
)
def test_wrong_bytes(client: TestClient, distribution: Distribution) -> None:
    """What the archive is and says has to be what its filename says."""
    assert_refused(send(client, upload_form(distribution)), 400, "")


def _no_name(body: bytes) -> bytes:
    return body.replace(b'form-data; name="name"', b"form-data")


#: Ways to break a right form, and what the answer says.
BROKEN_FORMS: list[tuple[Callable[[bytes], bytes], str]] = [
    (lambda _: b"", "cut short"),
    (lambda _: b"\r\n", ""),
    (lambda _: b"nonsense", "malformed"),
    (lambda body: body[: -len(BOUNDARY) - 8], "cut short"),
    (lambda body: body[:-4], "cut short"),
    (lambda body: body[: len(body) // 2], "cut short"),
    (lambda body: body[:10], "cut short"),
    (lambda body: body.replace(BOUNDARY.encode(), b"other"), "malformed"),
    (lambda body: body.replace(b"content-disposition", b"content disposition", 1), "malformed"),
    (lambda body: body.replace(b"content-disposition", b"x-other", 1), "no name"),
    (_no_name, "no name"),
    (lambda body: body.replace(b"form-data", b"attachment", 1), "no name"),
    (lambda body: body.replace(b'name="name"', b'name="name"; name="version"'), "two names"),
    (lambda body: body.replace(b'; filename="', b'; filename="x.whl"; filename="'), "two names"),
    (lambda body: body.replace(b'; filename="', b'; x="'), "no filename"),
    (lambda body: body.replace(b'; filename="', b"; filename*=\"utf-8''"), "no filename"),
    (lambda body: body.replace(b'name="name"', b'name="\xff"'), "not valid UTF-8"),
    (lambda body: body.replace(b"\r\n\r\ndemo_pkg\r\n", b"\r\n\r\n\xff\xfe\r\n"), "not valid UTF-8"),
    (lambda body: body.replace(b'"name"\r\n', b'"name"\r\ncontent-disposition: form-data; name="x"\r\n'), "twice"),
    (lambda body: body.replace(b'"name"\r\n', b'"name"\r\n' + b"x-h: 1\r\n" * 50), ""),
    (lambda body: body.replace(b'"name"\r\n', b'"name"\r\nx: ' + b"y" * 100_000 + b"\r\n"), ""),
]


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(("damage", "says"), BROKEN_FORMS)
def test_broken_form(client: TestClient, damage: Callable[[bytes], bytes], says: str) -> None:
    """A form that is not whole and well-formed is refused, though its length is the one that was announced."""
    body = upload_form(WHEEL)
    broken = damage(body)
    assert body != broken
    assert_refused(send(client, broken), 400, says)


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    "content_type",
    (
        None,
        "",
        "text/plain",
        "application/json",
        "application/octet-stream",
        "multipart/mixed; boundary=x",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary=""',
        f"multipart/form-data; boundary={'b' * 5000}",
        "multipart/form-data; boundary=\xff\xfe",
        "multipart/form-data;;;;=;",
        f'multipart/form-data; boundary="{BOUNDARY}; x',
    ),
)
def test_wrong_content_type(client: TestClient, content_type: str | None) -> None:
    """Only a form is read as a form."""
    headers = {} if content_type is None else header("content-type", content_type)
    assert_refused(client.post("/", content=upload_form(WHEEL), headers=headers), 400, "")


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    ("parts", "says"),
    (
        ([CONTENT, CONTENT], "two files"),
        ([CONTENT, part("content", SDIST.content, SDIST.filename)], "two files"),
        ([], "'content' is missing"),
        ([part("content", "text")], "no filename"),
        ([part("file", WHEEL.content, WHEEL.filename)], "'content' is missing"),
        ([CONTENT, part("name", "demo_pkg")], "'name' twice"),
        ([CONTENT, part(":action", "verify")], "':action' twice"),
        ([CONTENT, part("sha256_digest", WHEEL.sha256)], "'sha256_digest' twice"),
    ),
)
def test_wrong_set_of_parts(client: TestClient, parts: list[bytes], says: str) -> None:
    """One file, and each fact once: of two the index will not choose."""
    fields = [part(*field) for field in upload_fields(WHEEL).items()]
    assert_refused(send(client, encode([*fields, *parts])), 400, says)
    assert_refused(send(client, encode([*parts, *fields])), 400, says)


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    "body",
    (
        b"",
        b":action=file_upload&name=demo",
        b"%3Aaction=file_upload&content=abc",
        b":action=file_upload&name=\xff\xfe",
        b":action=file_upload&:action=verify",
        b"&".join(b"a=1" for _ in range(5_000)),
        b"a" * 100_000,
    ),
)
def test_urlencoded_form(client: TestClient, body: bytes) -> None:
    """A urlencoded form cannot carry a file."""
    headers = {"content-type": "application/x-www-form-urlencoded"}
    assert_refused(client.post("/", content=body, headers=headers), 400, "")


def test_large_urlencoded_form(client: TestClient) -> None:
    """Without a file a form is small."""
    headers = {"content-type": "application/x-www-form-urlencoded"}
    answer = client.post("/", content=b"a" * 2_000_000, headers=headers)
    assert_refused(answer, 413, "larger than")

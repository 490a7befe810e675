"""Core metadata: read leniently for pages, with all faults at once for uploads."""

import pytest

from pypiserver_ng.errors import Invalid
from pypiserver_ng.filenames import parse_upload
from pypiserver_ng.metadata import MAX_MESSAGE, MAX_SIZE, CoreMetadata, parse_metadata, validate_metadata

DEMO = parse_upload("demo_pkg-1.0-py3-none-any.whl")
HEAD = "Metadata-Version: 2.4\nName: Demo.Pkg\nVersion: 1.0\n"

FULL = """\
Metadata-Version: 2.4
Name: Demo.Pkg
Version: 1.0
Summary: A demonstration
Requires-Python: >=3.9
Description-Content-Type: text/markdown
Author: Zoë
Author-email: Zoë <zoe@example.org>
Maintainer: Ann
Maintainer-email: ann@example.org
License: MIT License
       |
        Permission is granted
       |  to all
License-Expression: MIT
License-File: LICENSE
License-File: licenses/extra.txt
Keywords: a,b
Home-page: https://demo.example/
Download-URL: https://demo.example/dl
Project-URL: Source, https://demo.example/src?a,b
project-url: https://demo.example/bare
Classifier: Programming Language :: Python :: 3
Classifier: Private :: Do Not Upload
Requires-Dist: requests>=2; python_version >= "3.9"
Requires-Dist: other @ https://files.example/other-1.0.tar.gz
Provides-Extra: fast
Platform: any
Platform: linux
Dynamic: Version
X-Unknown: ignored

# Demo

Name: not a field
"""


def test_every_field_is_read() -> None:
    """Fields keep their order, names are read in any case, and the body is the description."""
    expected = CoreMetadata(
        name="Demo.Pkg",
        version="1.0",
        metadata_version="2.4",
        summary="A demonstration",
        requires_python=">=3.9",
        description="# Demo\n\nName: not a field\n",
        description_content_type="text/markdown",
        author="Zoë",
        author_email="Zoë <zoe@example.org>",
        maintainer="Ann",
        maintainer_email="ann@example.org",
        license="MIT License\n\nPermission is granted\n  to all",
        license_expression="MIT",
        license_files=("LICENSE", "licenses/extra.txt"),
        keywords="a,b",
        home_page="https://demo.example/",
        download_url="https://demo.example/dl",
        project_urls=(("Source", "https://demo.example/src?a,b"), ("", "https://demo.example/bare")),
        classifiers=("Programming Language :: Python :: 3", "Private :: Do Not Upload"),
        requires_dist=(
            'requests>=2; python_version >= "3.9"',
            "other @ https://files.example/other-1.0.tar.gz",
        ),
        provides_extra=("fast",),
        platforms=("any", "linux"),
        dynamic=("Version",),
    )
    assert expected == parse_metadata(FULL.encode())
    assert expected == validate_metadata(FULL.encode(), DEMO)
    assert expected == parse_metadata(FULL.replace("\n", "\r\n").encode())


@pytest.mark.parametrize("value", ("UNKNOWN", "", "   ", "\n  "))
def test_unknown_and_empty_are_absent(value: str) -> None:
    """Old tools wrote UNKNOWN where there was nothing to say."""
    metadata = parse_metadata(f"{HEAD}Summary: {value}\nPlatform: {value}\nLicense: {value}\n\nUNKNOWN\n".encode())
    assert (
        metadata.summary,
        metadata.platforms,
        metadata.license,
        metadata.description,
    ) == (None, (), None, None)


LENIENT = {
    "latin-1": (HEAD.encode() + b"Author: Zo\xeb\n", "author", "Zoë"),
    "a folded summary": (HEAD.encode() + b"Summary: one\n  two\n\tthree\n", "summary", "one two three"),
    "a control character": (HEAD.encode() + b"Summary: a\x00b\x1b[1m\n", "summary", "a b [1m"),
    "a repeated field": (HEAD.encode() + b"Summary: one\nSummary: two\n", "summary", "one"),
    "a description among the headers": (
        HEAD.encode() + b"Description: Demo\n        ====\n        \n         x\n",
        "description",
        "Demo\n====\n\n x",
    ),
    "a body after a broken header": (
        HEAD.encode() + b"not a header\nmore\n",
        "description",
        "not a header\nmore\n",
    ),
    "carriage returns": (HEAD.replace("\n", "\r").encode() + b"Summary: x\r\rbody", "description", "body"),
    "an odd specifier": (HEAD.encode() + b"Requires-Python: >=3.6.*\n", "requires_python", ">=3.6.*"),
    "an odd version": (HEAD.replace("1.0", "2012x").encode(), "version", "2012x"),
    "no metadata version": (b"Name: demo\nVersion: 1\n", "metadata_version", None),
    "MIME headers": (
        HEAD.encode() + b"Content-Type: multipart/mixed; boundary=x\n\n--x\nSummary: inner\n\nbody\n--x--\n",
        "summary",
        None,
    ),
}


@pytest.mark.parametrize(("raw", "field", "expected"), LENIENT.values(), ids=LENIENT)
def test_what_is_odd_is_read_all_the_same(raw: bytes, field: str, expected: str | None) -> None:
    """Files found in a directory have whatever metadata their time wrote."""
    assert expected == getattr(parse_metadata(raw), field)


UNUSABLE = {
    "nothing": b"",
    "no name": b"Metadata-Version: 2.1\nVersion: 1.0\n",
    "no version": b"Metadata-Version: 2.1\nName: demo\n",
    "a name that is none": b"Name: ../demo\nVersion: 1.0\n",
    "not text": bytes(range(256)) * 100,
    "zeros": bytes(100_000),
    "endless lines": HEAD.encode() + b"a:\n" * 200_000,
    "too large": HEAD.encode() + b"\n" + b"x" * MAX_SIZE,
}


@pytest.mark.parametrize("raw", UNUSABLE.values(), ids=UNUSABLE)
def test_metadata_that_names_no_release_is_invalid(raw: bytes) -> None:
    """Without a name and a version there is nothing to show; the reader raises nothing else."""
    with pytest.raises(Invalid):
        parse_metadata(raw)
    with pytest.raises(Invalid):
        validate_metadata(raw, DEMO)


ACCEPTED = (
    *(f"Metadata-Version: {version}\nName: demo_pkg\nVersion: 1.0\n" for version in ("1.0", "1.1", "1.2", "2.0")),
    *(f"Metadata-Version: 2.{minor}\nName: demo-pkg\nVersion: 1.0.0\n" for minor in (1, 2, 3, 4, 5, 6, 7, 99)),
    HEAD + "License: any old text :)\nClassifier: No Such :: Thing\nLicense: UNKNOWN\n",
    HEAD + "Requires-Python:\nRequires-Dist:\n",
    HEAD + "Requires-Python: >=3.8, !=3.9.*, <4\n",
    HEAD + 'Requires-Dist: a[b,c]>=1; extra == "x" and (os_name == "nt" or sys_platform == "linux")\n',
    HEAD + "Requires-Dist: a (>=1.0)\nRequires-Dist: b (>1,<2) ; python_version < '3'\n",
    HEAD + "Requires-Dist: local @ file:///srv/local-1.0.tar.gz\n",
    HEAD + "Requires: old\nProvides: old\nObsoletes: older\nImport-Name: demo\n",
)


@pytest.mark.parametrize("text", ACCEPTED)
def test_what_build_tools_write_passes(text: str) -> None:
    """An upload is held to what installers rely on, in the spelling of any tool and time."""
    assert validate_metadata(text.encode(), DEMO).version in {"1.0", "1.0.0"}


FAULTS = (
    ("Name: demo_pkg\nVersion: 1.0\n", "Metadata-Version is missing"),
    ("Metadata-Version: 3.0\nName: demo_pkg\nVersion: 1.0\n", "Metadata-Version '3.0' is not known"),
    ("Metadata-Version: 1.3\nName: demo_pkg\nVersion: 1.0\n", "Metadata-Version '1.3' is not known"),
    ("Metadata-Version: 2.1\nVersion: 1.0\n", "Name is missing"),
    ("Metadata-Version: 2.1\nName: -x-\nVersion: 1.0\n", "Name '-x-' is not a project name"),
    ("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n", "Name other is not that of the filename, demo_pkg"),
    ("Metadata-Version: 2.1\nName: demo_pkg\n", "Version is missing"),
    ("Metadata-Version: 2.1\nName: demo_pkg\nVersion: x\n", "Version 'x' is not a version by PEP 440"),
    ("Metadata-Version: 2.1\nName: demo_pkg\nVersion: 1.1\n", "Version 1.1 is not that of the filename, 1.0"),
    (f"Metadata-Version: 2.1\nName: demo_pkg\nVersion: {'1' * 5000}\n", "is not a version by PEP 440"),
    (HEAD + "Name: other\n", "Name is given more than once"),
    (HEAD + "Requires-Python: >=3\nrequires-python: >=4\n", "Requires-Python is given more than once"),
    (HEAD + "Home-page: a\nHome-page: b\nDownload-URL: c\nDownload-URL: d\n", "Download-URL is given more than once"),
    (HEAD + "Requires-Python: three\n", "Requires-Python 'three' is not a valid version specifier"),
    (HEAD + f"Requires-Python: >={'1' * 5000}.*\n", "is not a valid version specifier"),
    (HEAD + "Requires-Dist: a b c\n", "Requires-Dist 'a b c' is not a valid requirement"),
    (HEAD + f"Requires-Dist: a; {'(' * 2000}\n", "is not a valid requirement"),
    (HEAD + f"Requires-Dist: a{'>=1,' * 10_000}>=1\n", "is not a valid requirement"),
    (HEAD + "Requires-Dist: a-long-name-of-a-project-that-fills-a-line\n" * 30_000, "characters in all"),
)


@pytest.mark.parametrize(("text", "fault"), FAULTS)
def test_a_fault_is_named(text: str, fault: str) -> None:
    """The refusal of an upload says which field is wrong, in one printable line."""
    with pytest.raises(Invalid) as refused:
        validate_metadata(text.encode(), DEMO)
    assert fault in refused.value.message
    assert refused.value.message.isprintable()
    assert len(refused.value.message) <= MAX_MESSAGE


def test_all_faults_are_named_at_once() -> None:
    """Whoever uploads learns everything that is wrong from the first attempt."""
    text = "Metadata-Version: 9\nName: x\nVersion: 2\nRequires-Python: ?\nRequires-Dist: ?\nRequires-Dist: !\n"
    with pytest.raises(Invalid) as refused:
        validate_metadata(text.encode(), DEMO)
    assert refused.value.message == (
        "Invalid metadata: Metadata-Version '9' is not known; Name x is not that of the filename, demo_pkg; "
        "Version 2 is not that of the filename, 1.0; Requires-Python '?' is not a valid version specifier; "
        "Requires-Dist '?' is not a valid requirement; Requires-Dist '!' is not a valid requirement"
    )


def test_many_faults_are_cut_to_one_line() -> None:
    """A thousand faults make no longer a message than a few."""
    with pytest.raises(Invalid) as refused:
        validate_metadata((HEAD + "Requires-Dist: ?\n" * 1000).encode(), DEMO)
    assert len(refused.value.message) == MAX_MESSAGE


def test_an_upload_that_is_not_utf_8_is_refused() -> None:
    """The specification knows one encoding; files of old may differ, new ones may not."""
    with pytest.raises(Invalid, match="UTF-8"):
        validate_metadata(HEAD.encode() + b"Author: Zo\xeb\n", DEMO)

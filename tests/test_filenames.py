"""Filenames become (name, version, kind): strict for uploads, lenient for what lies in a directory."""

import pytest

from pypiserver_ng import filenames
from pypiserver_ng.errors import Invalid
from pypiserver_ng.model import Kind, ParsedFilename, normalize_name

UPLOADS = (
    ("demo-1.0-py3-none-any.whl", "demo", "1.0", Kind.WHEEL),
    ("six-1.17.0-py2.py3-none-any.whl", "six", "1.17.0", Kind.WHEEL),
    ("Foo.Bar-1.0-py3-none-any.whl", "foo-bar", "1.0", Kind.WHEEL),
    ("foo_bar-1.0-1-py3-none-any.whl", "foo-bar", "1.0", Kind.WHEEL),
    ("foo_bar-1.0-20240101.abc_1-py3-none-any.whl", "foo-bar", "1.0", Kind.WHEEL),
    ("torch-2.4.0+cu121-cp311-cp311-linux_x86_64.whl", "torch", "2.4.0+cu121", Kind.WHEEL),
    ("demo-1!2.0rc1.post2.dev3-py3-none-any.whl", "demo", "1!2.0rc1.post2.dev3", Kind.WHEEL),
    ("numpy-2.4.6-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl", "numpy", "2.4.6", Kind.WHEEL),
    ("demo-1.0-cp313-cp313t-pyemscripten_2025_0_wasm32.whl", "demo", "1.0", Kind.WHEEL),
    ("demo-1.0-graalpy311-graalpy240_311_native-macosx_11_0_arm64.whl", "demo", "1.0", Kind.WHEEL),
    ("demo-1.0.tar.gz", "demo", "1.0", Kind.SDIST),
    ("foo_bar-1.0.0.tar.gz", "foo-bar", "1.0.0", Kind.SDIST),
    ("foo_bar-1.0+local.1.zip", "foo-bar", "1.0+local.1", Kind.SDIST),
    ("zope_2_7-2024.1.5.dev0.tar.gz", "zope-2-7", "2024.1.5.dev0", Kind.SDIST),
)


@pytest.mark.parametrize(("filename", "name", "version", "kind"), UPLOADS)
def test_an_upload_with_the_name_that_tools_build_is_taken(filename: str, name: str, version: str, kind: Kind) -> None:
    """What current build tools produce is read, name and version in their normalized spelling."""
    parsed = filenames.parse_upload(filename)
    assert (filename, name, version, kind) == (parsed.filename, parsed.name, parsed.version, parsed.kind)


RENAMED = (
    ("foo-bar-1.0.tar.gz", "foo_bar-1.0.tar.gz"),
    ("Foo.Bar-1.0.tar.gz", "foo_bar-1.0.tar.gz"),
    ("foo__bar-1.0.zip", "foo_bar-1.0.zip"),
    ("demo-1.0-1.tar.gz", "demo-1.0.post1.tar.gz"),
    ("demo-2012b.tar.gz", "demo-2012b0.tar.gz"),
    ("demo-v1.0.tar.gz", "demo-1.0.tar.gz"),
    ("demo-01.0.tar.gz", "demo-1.0.tar.gz"),
    ("demo-1.0_1-py3-none-any.whl", "demo-1.0.post1-py3-none-any.whl"),
    ("demo-1.0+ABC_1-py3-none-any.whl", "demo-1.0+abc.1-py3-none-any.whl"),
    ("foo__bar-1.0-py3-none-any.whl", "foo_bar-1.0-py3-none-any.whl"),
)


@pytest.mark.parametrize(("filename", "right"), RENAMED)
def test_an_upload_with_another_spelling_is_told_the_right_name(filename: str, right: str) -> None:
    """PEP 625 and the wheel format know one spelling; the refusal ends with it."""
    with pytest.raises(Invalid) as refused:
        filenames.parse_upload(filename)
    assert refused.value.message.endswith(f"it must be {right}")


REFUSED = (
    "",
    ".",
    "demo",
    ".demo-1.0.tar.gz",
    "../demo-1.0.tar.gz",
    "a/demo-1.0.tar.gz",
    "..\\demo-1.0.tar.gz",
    "demo-1.0\n.tar.gz",
    "demo-1.0\0.tar.gz",
    "demo-1.0.tar.gz\n",
    "demo -1.0.tar.gz",
    "\N{KELVIN SIGN}elvin-1.0.tar.gz",
    "de\N{LATIN SMALL LETTER LONG S}-1.0-py3-none-any.whl",
    "demo-\N{ARABIC-INDIC DIGIT ONE}.0.tar.gz",
    "demo-1.0\udc80.tar.gz",
    "-1.0.tar.gz",
    "_demo-1.0.tar.gz",
    "<script>-1.0.tar.gz",
    "demo.tar.gz",
    "demo-foo.tar.gz",
    "demo-1.0-foo.tar.gz",
    "demo-1.0.tgz",
    "demo-1.0.TAR.GZ",
    "demo-1.0.tar.bz2",
    "demo-1.0.egg",
    "demo-1.0.tar.gz.asc",
    "demo-1.0-py3-none-any.WHL",
    "demo-1.0-py3-none-any.whl.metadata",
    "demo-1.0.whl",
    "demo-1.0-py3-none.whl",
    "demo-1.0-1-2-py3-none-any.whl",
    "demo-1.0-build-py3-none-any.whl",
    "demo-foo-py3-none-any.whl",
    "demo-1.0-3-none-any.whl",
    "demo-1.0-py3-none-<script>.whl",
    'demo-1.0-py3-none-any".whl',
    "demo-1.0-py3-none-.whl",
    "demo-1.0-py3..py2-none-any.whl",
    "_demo-1.0-py3-none-any.whl",
    "demo-" + "1" * 250 + ".tar.gz",
    "demo-" + "1" * 5000 + ".tar.gz",
)


@pytest.mark.parametrize("filename", REFUSED)
def test_an_upload_with_a_name_that_nobody_builds_is_refused(filename: str) -> None:
    """The refusal is one printable line of ASCII, whatever was sent."""
    with pytest.raises(Invalid) as refused:
        filenames.parse_upload(filename)
    assert refused.value.message.isprintable()
    assert refused.value.message.isascii()
    assert len(refused.value.message) < 600


FOUND = (
    ("demo-1.0-py3-none-any.whl", "demo", "1.0", Kind.WHEEL),
    ("pywin32-217-55-cp27-none-win32.whl", "pywin32", "217", Kind.WHEEL),
    ("a-b-1.0-py3-none-any.whl", "a-b", "1.0", Kind.WHEEL),
    ("demo-2012x-py2-none-any.whl", "demo", "2012x", Kind.WHEEL),
    ("demo-1.0.tar.gz", "demo", "1.0", Kind.SDIST),
    ("DEMO-1.0.TAR.GZ", "DEMO", "1.0", Kind.SDIST),
    ("demo-1.0.Zip", "demo", "1.0", Kind.SDIST),
    ("demo-1.0.tgz", "demo", "1.0", Kind.SDIST),
    ("demo-1.0.tar.bz2", "demo", "1.0", Kind.SDIST),
    ("demo-1.0.tar.xz", "demo", "1.0", Kind.SDIST),
    ("package.zip", "package", "", Kind.SDIST),
    ("foo-bar.zip", "foo-bar", "", Kind.SDIST),
    ("foo-bar-1.0.tar.gz", "foo-bar", "1.0", Kind.SDIST),
    ("foo-2to3-1.0.tar.gz", "foo-2to3", "1.0", Kind.SDIST),
    ("foo.bar-baz-1.tar.gz", "foo.bar-baz", "1", Kind.SDIST),
    ("foo-2-1.tar.gz", "foo-2", "1", Kind.SDIST),
    ("foo-v1.0.zip", "foo", "1.0", Kind.SDIST),
    ("python-dateutil-2.8.2.tar.gz", "python-dateutil", "2.8.2", Kind.SDIST),
    ("cffi-1.0.2-2.tgz", "cffi", "1.0.2.post2", Kind.SDIST),
    ("pytz-2012b.tar.bz2", "pytz", "2012b0", Kind.SDIST),
    ("pytz-2012x.tar.bz2", "pytz", "2012x", Kind.SDIST),
    ("pkg-3!1.0-0.1.tgz", "pkg", "3!1.0-0.1", Kind.SDIST),
    ("flup-123-1.0.3.dev-20110405.tar.gz", "flup-123", "1.0.3.dev20110405", Kind.SDIST),
    ("branch-0.5-some-1-20130712.zip", "branch", "0.5-some-1-20130712", Kind.SDIST),
    ("thing-v1-8.1.301.ga0df26f.zip", "thing-v1", "8.1.301.ga0df26f", Kind.SDIST),
    ("thing-123-20000101.zip", "thing-123", "20000101", Kind.SDIST),
    ("thing-123-1.3.7+build.11.e0f985a.zip", "thing-123", "1.3.7+build.11.e0f985a", Kind.SDIST),
    ("some-name-0.1.dev0.linux-x86_64.tar.gz", "some-name", "0.1.dev0", Kind.SDIST),
    ("some-name-0.1.macosx-10.10-intel.tar.gz", "some-name", "0.1", Kind.SDIST),
    ("demo-1.0 (1).tar.gz", "demo", "1.0 (1)", Kind.SDIST),
    ("demo-1.0-py2.7.egg", "demo", "1.0", Kind.EGG),
    ("demo_x-1.0_1-py3.10-linux-x86_64.egg", "demo_x", "1.0.post1", Kind.EGG),
    ("demo.egg", "demo", "", Kind.EGG),
    ("gevent-1.0b1.win32-py2.6.exe", "gevent", "1.0b1", Kind.INSTALLER),
    ("gevent-1.0.win-amd64-py3.10.MSI", "gevent", "1.0", Kind.INSTALLER),
    ("demo-1.0-py3.8-linux.rpm", "demo", "1.0", Kind.INSTALLER),
    ("numpy-1.0.tar.gz.asc", "numpy", "1.0", Kind.SIGNATURE),
    ("demo-1.0-py3-none-any.whl.asc", "demo", "1.0", Kind.SIGNATURE),
    ("package.zip.ASC", "package", "", Kind.SIGNATURE),
)


@pytest.mark.parametrize(("filename", "display_name", "version", "kind"), FOUND)
def test_a_found_file_is_read_as_pypiserver_reads_it(
    filename: str, display_name: str, version: str, kind: Kind
) -> None:
    """Old and odd names in a served directory belong to a project, with a version where they have one."""
    expected = ParsedFilename(filename, display_name, normalize_name(display_name), version, kind)
    assert expected == filenames.parse_found(filename)


NOT_FOUND = (
    "",
    "README.txt",
    "demo-1.0.txt",
    "broken.whl",
    "demo-py3-none-any.whl",
    "!-1-1-1-1.whl",
    "demo-1.0-py3-none-any.WHL",
    "demo-1.0-py3-none-any.whl.metadata",
    "demo-1.0.tar.gz.sig",
    "demo-1.0.tar",
    "demo-1.0.tar.Z",
    "demo-1.0.exe",
    "demo-1.0.msi",
    "demo-1.0.win32.exe",
    "demo-1.0.asc",
    "demo-1.0.tar.gz.asc.asc",
    ".demo-1.0.tar.gz",
    ".zip",
    "..zip",
    "-1.0.zip",
    "--.zip",
    "demo-.zip",
    "de mo-1.0.zip",
    "\N{KELVIN SIGN}elvin-1.0.zip",
    "demo-1.0-py2.7-x.m\N{LATIN SMALL LETTER LONG S}i",
    "demo-1.0\n.zip",
    "demo-1.0\x7f.zip",
    "demo-1.0\udcff.zip",
    "demo-1.0\N{RIGHT-TO-LEFT OVERRIDE}.zip",
    "demo\\x-1.0.zip",
    # Longer than any file system has them; nobody's parser gets to see them.
    "a-1.tar.gz" + ".asc" * 2000,
    "-1." * 20_000 + ".tar.gz",
    "a-1.0" + "-py3.1" * 10_000 + ".egg",
)


@pytest.mark.parametrize("filename", NOT_FOUND)
def test_a_found_file_that_is_no_distribution_is_passed_over(filename: str) -> None:
    """Other files in a served directory belong to no project."""
    assert filenames.parse_found(filename) is None


@pytest.mark.parametrize("filename", [row[0] for row in UPLOADS])
def test_an_upload_is_found_again_as_what_it_was(filename: str) -> None:
    """After a restart the directory's scan reads an uploaded name as the upload did."""
    assert filenames.parse_upload(filename) == filenames.parse_found(filename)


def test_versions_are_in_the_order_of_pep_440_and_unreadable_ones_first() -> None:
    """The order that pages list files in."""
    ordered = ["", "2012x", "custom", "1!0" * 2000, "0.9", "1.0.dev1", "1.0a1", "1.0", "1.0.post1", "1.10", "1!0.1"]
    unreadable = sorted(ordered[:4])
    assert unreadable + ordered[4:] == sorted(set(ordered), key=filenames.sort_key)


def test_the_name_that_an_sdist_should_have() -> None:
    """PEP 625 writes the normalized name with an underscore."""
    assert filenames.expected_sdist("Foo.Bar--baz", "1.0") == "foo_bar_baz-1.0.tar.gz"

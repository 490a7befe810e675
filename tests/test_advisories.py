"""OSV records on the disk: a directory or a zip, within limits, and a stamp that changes when they do."""

import json
import logging
import os
import zipfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from pypiserver_ng.errors import Invalid
from pypiserver_ng.model import NormalizedName
from pypiserver_ng.storage import advisories as room
from pypiserver_ng.storage.advisories import load_advisories, stamp


def write_record(name: str) -> str:
    package = {"ecosystem": "PyPI", "name": name}
    return json.dumps({"id": f"MAL-{name}", "affected": [{"package": package}]})


def fill_directory(path: Path, files: Mapping[str, str]) -> Path:
    for name, content in files.items():
        target = path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
    return path


def fill_zip(path: Path, files: Mapping[str, str]) -> Path:
    path.mkdir(exist_ok=True)
    with zipfile.ZipFile(path / "all.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path / "all.zip"


BOTH = pytest.mark.parametrize("fill", (fill_directory, fill_zip), ids=("directory", "zip"))
NAMES = ("one", "two", "hidden", "below-hidden", "text")
FILES = {
    "one.json": write_record("one"),
    "a/b/two.json": write_record("two"),
    ".hidden.json": write_record("hidden"),
    ".dir/x.json": write_record("below-hidden"),
    "readme.txt": write_record("text"),
}


@BOTH
def test_every_record_is_read(fill: Callable[..., Path], tmp_path: Path) -> None:
    """At any depth; dot names and other files are left out."""
    advisories = load_advisories(fill(tmp_path / "osv", FILES))
    assert [name for name in NAMES if advisories.covers_all(NormalizedName(name))] == ["one", "two"]


@BOTH
def test_broken_records_cost_themselves_only(
    fill: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They are counted in one line, which names one of them."""
    files = {f"{number}.json": "{" for number in range(3)} | {"one.json": write_record("one")}
    with caplog.at_level(logging.WARNING):
        advisories = load_advisories(fill(tmp_path / "osv", files))
    assert advisories.covers_all(NormalizedName("one"))
    (record,) = caplog.records
    assert record.getMessage().startswith("3 of 4 OSV records are broken and block nothing, such as '")
    assert ".json': it is not an OSV record: " in record.getMessage()


@BOTH
def test_a_record_that_is_too_large_is_broken(
    fill: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever its zip says of its size."""
    files = {"one.json": write_record("one"), "big.json": write_record("big").ljust(17 * 2**20)}
    advisories = load_advisories(fill(tmp_path / "osv", files))
    assert len(advisories) == 1
    assert "'big.json': it is larger than 16 MiB" in caplog.text


@BOTH
@pytest.mark.parametrize(("limit", "value"), (("_MAX_RECORDS", 2), ("_MAX_TOTAL", 200)))
def test_too_many_records(
    fill: Callable[..., Path], limit: str, value: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are refused as a whole, with what to do about it."""
    path = fill(tmp_path / "osv", {f"{name}.json": write_record(name) for name in ("a", "b", "c")})
    monkeypatch.setattr(room, limit, value)
    with pytest.raises(Invalid, match="keep only those of Python projects"):
        load_advisories(path)


def test_a_damaged_member_is_a_broken_record(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its neighbours are read."""
    path = fill_zip(tmp_path / "osv", {"one.json": write_record("one"), "two.json": write_record("two")})
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("two.json").header_offset + 30 + len("two.json")
    content = bytearray(path.read_bytes())
    content[start : start + 20] = b"\xff" * 20
    path.write_bytes(content)
    assert len(load_advisories(path)) == 1
    assert "'two.json': it is damaged, or in a form that cannot be unpacked" in caplog.text


@pytest.mark.parametrize("method", (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
def test_damage_in_other_compressions(method: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each library complains in its own way."""
    path = tmp_path / "all.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("two.json", write_record("two") * 100)
        start = archive.getinfo("two.json").header_offset + 30 + len("two.json")
        archive.writestr("one.json", write_record("one"))
    content = bytearray(path.read_bytes())
    content[start + 20 : start + 40] = b"\xff" * 20
    path.write_bytes(content)
    assert len(load_advisories(path)) == 1
    assert "'two.json': it is damaged" in caplog.text


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-10])
    return path


def test_what_is_no_source_of_records(tmp_path: Path) -> None:
    """Nothing there, nothing in it, and what is neither directory nor zip: nobody is protected by it."""
    files = {"one.json": write_record("one")}
    for path, expected in (
        (tmp_path / "absent", "No such file or directory"),
        (fill_directory(tmp_path / "text", {"x": "y"}) / "x", "neither a directory nor a whole zip file"),
        (cut(fill_zip(tmp_path / "cut", files)), "neither a directory nor a whole zip file"),
        (fill_directory(tmp_path / "empty", {"x": "y"}), "holds no OSV record"),
        (fill_zip(tmp_path / "bare", {}), "holds no OSV record"),
        (fill_directory(tmp_path / "broken", {"x.json": "{"}), "holds no OSV record"),
    ):
        with pytest.raises(Invalid) as refused:
            load_advisories(path)
        assert expected in refused.value.message
        assert str(path) in refused.value.message


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="there is no file here that root cannot read")
def test_what_cannot_be_read_is_refused_as_a_whole(tmp_path: Path) -> None:
    """A part that is missing would protect in part, and nobody would see it."""
    path = fill_directory(tmp_path, FILES)
    (path / "odd.json").symlink_to("/proc/self/mem")
    with pytest.raises(Invalid, match="Input/output error"):
        load_advisories(path)


def test_a_directory_that_cannot_be_read_is_refused_as_a_whole(tmp_path: Path) -> None:
    """One at the end of a path that is too long, since root may read all others and nobody can make it by that path."""
    path = fill_directory(tmp_path, FILES)
    with ExitStack() as opened:
        fd = os.open(path, os.O_RDONLY)
        for _ in range(20):
            opened.callback(os.close, fd)
            os.mkdir("x" * 250, dir_fd=fd)
            fd = os.open("x" * 250, os.O_RDONLY, dir_fd=fd)
        opened.callback(os.close, fd)
    with pytest.raises(Invalid, match="File name too long"):
        load_advisories(path)
    assert stamp(path)[0] == 2


def test_links_to_files_are_followed(tmp_path: Path) -> None:
    """Links to directories are not, so that none leads in a circle; dangling ones are nothing."""
    outside = fill_directory(tmp_path / "outside", {"one.json": write_record("one")})
    path = fill_directory(tmp_path / "osv", {"two.json": write_record("two")})
    (path / "linked.json").symlink_to(outside / "one.json")
    (path / "dangling.json").symlink_to(path / "absent")
    (path / "circle").symlink_to(path)
    assert len(load_advisories(path)) == 2
    assert stamp(path)[0] == 2


@BOTH
def test_a_stamp_changes_with_the_records(fill: Callable[..., Path], tmp_path: Path) -> None:
    """Also when a file is replaced by one with an older time or of the same size, and when all goes."""
    path = fill(tmp_path / "osv", FILES)
    stamps = [stamp(path)]
    changed = path / "one.json" if path.is_dir() else path
    os.utime(changed, (1, 1))
    stamps.append(stamp(path))
    fill(tmp_path / "osv", FILES | {"one.json": write_record("three")})
    stamps.append(stamp(path))
    assert stamp(path) == stamps[-1]
    if path.is_dir():
        changed.unlink()
        stamps.append(stamp(path))
    path.rename(tmp_path / "elsewhere")
    stamps.append(stamp(path))
    assert len(set(stamps)) == len(stamps)
    assert stamps[-1] == ()


def test_a_zip_that_is_replaced_by_a_twin_changes_the_stamp(tmp_path: Path) -> None:
    """Same size, same time, another file."""
    one, other = (fill_zip(tmp_path / name, FILES) for name in ("one", "other"))
    for path in (one, other):
        os.utime(path, (1, 1))
    before = stamp(one)
    other.replace(one)
    assert stamp(one) != before

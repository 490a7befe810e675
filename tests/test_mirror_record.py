"""What is kept of an upstream's word: under a filename no other bytes are taken than those that were first seen."""

from typing import Any

import msgspec
import pytest

from pypiserver_ng.index.mirror.record import (
    Record,
    absent_record,
    decode_record,
    encode_record,
    merge_record,
    see_first,
)
from pypiserver_ng.model import Kind, NormalizedName, UpstreamFile, UpstreamPage

DEMO = NormalizedName("demo")
ONE, TWO = "1" * 64, "2" * 64


def file(version: str = "1.0", **facts: Any) -> UpstreamFile:
    filename = f"demo-{version}-py3-none-any.whl"
    return UpstreamFile(filename, DEMO, "demo", version, Kind.WHEEL, f"https://mirror.example/{filename}", **facts)


def merge(old: Record | None, *files: UpstreamFile) -> Record:
    return merge_record(
        old, "https://mirror.example/", UpstreamPage(files), etag=None, last_modified=None, body_digest=""
    )


def listed(record: Record) -> UpstreamFile:
    assert record.page is not None
    [only] = record.page.files
    return only


def test_a_record_survives_the_disk() -> None:
    record = merge(None, file(sha256=ONE, size=5, metadata_sha256=TWO), file("2.0"))
    assert decode_record(encode_record(record)) == record
    assert decode_record(b"\x00damaged") is None
    assert decode_record(encode_record(msgspec.structs.replace(record, format=99))) is None


def test_files_are_sorted_by_version() -> None:
    record = merge(None, file("1.10"), file("1.9"), file("1.10rc1"))
    assert record.page is not None
    assert [one.version for one in record.page.files] == ["1.9", "1.10rc1", "1.10"]


@pytest.mark.parametrize(
    ("first", "then"),
    (
        ({"sha256": ONE}, {"sha256": TWO}),
        ({"other_digest": "sha512=aa"}, {"other_digest": "sha512=bb"}),
    ),
)
def test_other_bytes_are_refused(first: dict[str, Any], then: dict[str, Any]) -> None:
    """Also after the file was gone for a while, and after the project was."""
    record = merge(None, file(**first))
    for old in (record, merge(record, file("2.0")), absent_record(record, "https://mirror.example/")):
        again = merge(old, file(**then))
        assert listed(again) == file(**first)
        assert set(again.refused) == {file().filename}


@pytest.mark.parametrize(
    ("first", "then", "kept"),
    (
        ({"sha256": ONE, "size": 5}, {}, {"sha256": ONE, "size": 5}),
        ({"sha256": ONE, "size": 5}, {"sha256": ONE, "size": 6}, {"sha256": ONE, "size": 5}),
        ({"sha256": ONE, "metadata_sha256": ONE}, {"sha256": ONE, "metadata_sha256": TWO}, {"metadata_sha256": ONE}),
        ({"sha256": ONE}, {"sha256": ONE, "metadata_sha256": TWO, "size": 6}, {"metadata_sha256": TWO, "size": 6}),
        ({"other_digest": "sha512=aa"}, {"other_digest": "md5=bb"}, {"other_digest": "sha512=aa"}),
        ({"other_digest": "sha512=aa"}, {}, {"other_digest": "sha512=aa"}),
        ({"other_digest": "md5=aa"}, {"sha256": ONE}, {"sha256": ONE}),
    ),
)
def test_less_changes_no_check(first: dict[str, Any], then: dict[str, Any], kept: dict[str, Any]) -> None:
    """What goes with bytes stays with them; a better digest than before is taken."""
    found = listed(merge(merge(None, file(**first)), file(**then)))
    assert {name: getattr(found, name) for name in kept} == kept


def test_what_may_change_does() -> None:
    record = merge(merge(None, file(sha256=ONE)), file(sha256=ONE, yanked=True, requires_python=">=3.9"))
    assert (listed(record).yanked, listed(record).requires_python) == (True, ">=3.9")


def test_first_bytes_hold() -> None:
    """Those of a file without a hash: a hash that comes later must be theirs, and its size is what it was."""
    record = see_first(merge(None, file(size=5)), file().filename, ONE)
    assert see_first(record, file().filename, TWO) == record
    assert listed(merge(record, file(size=6))).size == 5
    assert merge(record, file(sha256=ONE)).refused == {}
    assert merge(record, file(sha256=TWO)).refused == {file().filename: TWO}


def test_a_flood_washes_nothing_away() -> None:
    """An upstream that lists and drops twenty thousand other files gets no other bytes under the first name."""
    record = merge(merge(None, file(sha256=ONE)), *(file(f"2.{number}") for number in range(20_500)))
    assert merge(merge(record), file(sha256=TWO)).refused == {file().filename: TWO}

"""OSV records: which of them speak of malware, and which releases they name."""

import json
from typing import Any

import pytest

from pypiserver_ng.errors import Invalid
from pypiserver_ng.model import NormalizedName
from pypiserver_ng.policy import Advisories, parse_record

DEMO = NormalizedName("demo-x")


def affected(name: Any = "Demo_X", ecosystem: Any = "PyPI", **parts: Any) -> dict[str, Any]:
    return {"package": {"name": name, "ecosystem": ecosystem}, **parts}


def events(*pairs: tuple[str, str], kind: str = "ECOSYSTEM") -> dict[str, Any]:
    return {"type": kind, "events": [{key: version} for key, version in pairs]}


def write(*entries: dict[str, Any], **fields: Any) -> bytes:
    return json.dumps({"id": "MAL-2026-1", "affected": list(entries), **fields}).encode()


VERSIONS = ("0.dev0", "0.9", "1.0", "1.0.post1", "1.5rc1", "1.5", "2.0", "9")
NAMED: tuple[tuple[dict[str, Any], tuple[str, ...]], ...] = (
    ({}, VERSIONS),
    ({"versions": [], "ranges": None}, VERSIONS),
    ({"versions": ["1.0.0", "2"]}, ("1.0", "2.0")),
    ({"versions": ["1.0.0", "odd"]}, ("1.0",)),
    ({"versions": ["9" * 300]}, ()),
    ({"ranges": [events(("introduced", "0"))]}, VERSIONS),
    ({"ranges": [events(("introduced", "0"))], "versions": ["1.0"]}, VERSIONS),
    ({"ranges": [events(("introduced", "0"), ("fixed", "1.0"))]}, ("0.dev0", "0.9")),
    ({"ranges": [events(("introduced", "0"), ("last_affected", "1.0"))]}, ("0.dev0", "0.9", "1.0")),
    ({"ranges": [events(("introduced", "1.0"))]}, ("1.0", "1.0.post1", "1.5rc1", "1.5", "2.0", "9")),
    ({"ranges": [events(("introduced", "1.0"), ("fixed", "1.5"))]}, ("1.0", "1.0.post1", "1.5rc1")),
    ({"ranges": [events(("fixed", "1.5"), ("introduced", "1.0"))]}, ("1.0", "1.0.post1", "1.5rc1")),
    ({"ranges": [events(("introduced", "1.0"), ("last_affected", "1.0"))]}, ("1.0",)),
    ({"ranges": [events(("last_affected", "1.0"), ("introduced", "1"))]}, ("1.0",)),
    (
        {"ranges": [events(("introduced", "0"), ("fixed", "1"), ("introduced", "1.5"), ("last_affected", "2"))]},
        ("0.dev0", "0.9", "1.5", "2.0"),
    ),
    ({"ranges": [events(("introduced", "0"), ("fixed", "1")), events(("introduced", "9"))]}, ("0.dev0", "0.9", "9")),
    ({"ranges": [events(("introduced", "0"), ("fixed", "1"))], "versions": ["2"]}, ("0.dev0", "0.9", "2.0")),
    ({"ranges": [events(("introduced", "0"), ("fixed", "0.9"), ("limit", "zzz"))]}, ("0.dev0",)),
    # The later of two that open says nothing new.
    ({"ranges": [events(("introduced", "1.5"), ("introduced", "2"), ("fixed", "9"))]}, ("1.5", "2.0")),
    # What cannot be understood may mean everything.
    ({"ranges": [events()]}, VERSIONS),
    ({"ranges": [events(("fixed", "1.0"))]}, VERSIONS),
    ({"ranges": [events(("introduced", "0"), ("fixed", "odd"))]}, VERSIONS),
    ({"ranges": [events(("introduced", "odd"), ("introduced", "1.5"), ("fixed", "2"))]}, VERSIONS),
    ({"ranges": [events(("introduced", "0"), ("mended", "1.0"))]}, VERSIONS),
    ({"ranges": [events(("introduced", "0"), ("fixed", "abc"), kind="GIT")]}, VERSIONS),
    ({"ranges": [events(("introduced", "1.0.0"), kind="SEMVER")]}, VERSIONS),
    # The list says what a range means that cannot be compared.
    ({"ranges": [events(("introduced", "0"), kind="GIT")], "versions": ["1.5"]}, ("1.5",)),
)


@pytest.mark.parametrize(("parts", "named"), NAMED)
def test_what_a_record_names(parts: dict[str, Any], named: tuple[str, ...]) -> None:
    """Lists, ranges in the order of PEP 440, or everything where neither is clear."""
    advisories = Advisories(parse_record(write(affected(**parts))))
    found = tuple(version for version in VERSIONS if advisories.find(DEMO, version))
    assert found == named
    assert bool(advisories.covers_all(DEMO)) is (named == VERSIONS)
    assert advisories.find(DEMO, "odd"), "nobody can compare it"
    assert advisories.find(DEMO, "9" * 300), "no filename holds it"
    assert advisories.find(DEMO, "")
    assert not advisories.find(NormalizedName("other"), "1.0")
    assert not advisories.find(NormalizedName("other"), "odd")


NO_MALWARE: tuple[dict[str, Any], ...] = (
    {"id": "PYSEC-2026-1"},
    {"id": "GHSA-1", "aliases": ["CVE-1"]},
    {"withdrawn": "2026-01-01T00:00:00Z"},
    {"affected": []},
    {"affected": None},
    {"affected": [affected(ecosystem="npm")]},
    {"affected": [{"versions": ["1.0"]}]},
)


@pytest.mark.parametrize("fields", NO_MALWARE)
def test_what_blocks_nothing(fields: dict[str, Any]) -> None:
    """Faults, withdrawn records, and other ecosystems."""
    assert parse_record(write(affected(), **{"id": "MAL-2026-1"} | fields)) == []


def test_an_alias_is_enough() -> None:
    """It is the name by which the record is called then."""
    (advisory,) = parse_record(write(affected(), id="GHSA-1", aliases=["CVE-1", "MAL-2026-9"]))
    assert (advisory.id, advisory.project) == ("MAL-2026-9", DEMO)


def test_a_record_may_name_several_projects() -> None:
    """Each with its own versions, and several records may name one."""
    content = write(
        affected(versions=["1"]), affected("other", versions=["2"]), affected("third", "npm"), withdrawn=None
    )
    advisories = Advisories([*parse_record(content), *parse_record(write(affected(versions=["3"]), id="MAL-2026-2"))])
    assert len(advisories) == 3
    assert [bool(advisories.find(DEMO, version)) for version in ("1", "2", "3")] == [True, False, True]
    found = advisories.find(DEMO, "3")
    assert found is not None
    assert found.id == "MAL-2026-2"
    assert advisories.find(NormalizedName("other"), "2")


BROKEN = (
    b"",
    b"[]",
    b"null",
    b"{}",
    b"\xff\xfe{}",
    b'{"id": "MAL-1", "affected": "x"}',
    b'{"id": "MAL-1", "id": 1}',
    b'{"id": "\\ud800MAL-1", "aliases": [1]}',
    b"[" * 100_000,
    b'{"id": "MAL-1", "x": ' + b'{"a":' * 100_000,
    write(affected("../etc")),
    write(affected("")),
    write(affected("a\nb")),
    write(affected("x" * 256)),
    write(affected(None)),
    write(affected(versions=[1])),
    write(affected(ranges=[{"type": "ECOSYSTEM"}])),
    write(affected(ranges=[{"type": "ECOSYSTEM", "events": [{"introduced": 0}]}])),
    write(affected(), id="MAL-"),
    write(affected(), id="MAL-1\r\nSet-Cookie: x"),
    write(affected(), id="MAL-" + "9" * 1000),
)


@pytest.mark.parametrize("content", BROKEN, ids=range(len(BROKEN)))
def test_a_broken_record_is_refused(content: bytes) -> None:
    """With one short line."""
    with pytest.raises(Invalid) as refused:
        parse_record(content)
    assert refused.value.message.isprintable()
    assert len(refused.value.message) < 300

"""What of the `[[policy]]` entries has no effect, and what has one."""

from datetime import UTC, datetime
from typing import Any

import pytest

from pypiserver_ng.config import build_config
from pypiserver_ng.policy import find_useless

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


def notice(*entries: dict[str, Any]) -> list[str]:
    config = build_config({"fallback-mode": "cache"}, {}, {"policy": list(entries)}, str)
    return find_useless(config.rules, NOW)


def of(*projects: str, **keys: Any) -> dict[str, Any]:
    return {"projects": list(projects), **keys}


UNREACHED: tuple[tuple[tuple[tuple[str, ...], ...], tuple[int, ...]], ...] = (
    ((("*",),), ()),
    ((("acme-*",), ("*",)), ()),
    ((("*",), ("acme-*",)), (2,)),
    ((("**",), ("acme-*",), ("*",)), (2, 3)),
    ((("demo", "*"), ("acme-*", "x")), (2,)),
    ((("acme-*",), ("acme-core",)), (2,)),
    ((("acme-core",), ("acme-*",)), ()),
    ((("acme-*",), ("acme-core", "other")), ()),
    ((("acme-*",), ("other",), ("Acme.Core", "other")), (3,)),
    ((("acme-*",), ("acme-*",)), (2,)),
    ((("acme-*",), ("acme-b*",)), ()),
    ((("demo", "demo"),), ()),
)


@pytest.mark.parametrize(("entries", "numbers"), UNREACHED)
def test_entries_that_are_never_reached(entries: tuple[tuple[str, ...], ...], numbers: tuple[int, ...]) -> None:
    """As far as two patterns can be compared; the first that matches decides."""
    found = notice(*(of(*projects) for projects in entries))
    assert [line.partition(" (")[0] for line in found] == [f"[[policy]] number {number}" for number in numbers]
    assert all("is never reached" in line for line in found)


STRANGERS: tuple[tuple[tuple[str, ...], str, bool], ...] = (
    (("demo",), "demo", False),
    (("demo",), "Demo==1.0", False),
    (("demo",), "other", True),
    (("demo", "other"), "other<2", False),
    (("demo",), "oth*", True),
    (("demo",), "de*", False),
    (("acme-*",), "acme_core>1", False),
    (("acme-*",), "badpkg", True),
    (("acme-*",), "bad*", False),
    (("*",), "badpkg", False),
)


@pytest.mark.parametrize("key", ("exempt", "allow", "deny"))
@pytest.mark.parametrize(("projects", "releases", "is_useless"), STRANGERS)
def test_releases_of_other_projects(projects: tuple[str, ...], releases: str, is_useless: bool, key: str) -> None:
    """A name in an entry speaks of the entry's projects only."""
    expected = f"[[policy]] number 1 ({', '.join(projects)}): {key!r} names {releases!r}, which is none of its projects"
    assert notice(of(*projects, **{key: [releases]})) == [expected] * is_useless


@pytest.mark.parametrize(
    ("until", "has_ended"), (("2026-11-26T12:00Z", True), ("2026-11-26T12:01Z", False), (None, False))
)
def test_exemptions_that_have_ended(until: str | None, has_ended: bool) -> None:
    """From that moment on."""
    exemption = {"release": "scipy<1.19"} | ({"until": until} if until else {})
    expected = "[[policy]] number 1 (scipy): the exemption of 'scipy<1.19' has ended at 2026-11-26T12:00Z: remove it"
    assert notice(of("scipy", exempt=[exemption])) == [expected] * has_ended

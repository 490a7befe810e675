"""Quarantine, shadow, reserve, denials, then the first entry that matches: who answers, and who says so."""

import pytest
from packaging.specifiers import SpecifierSet

from pypiserver_ng.model import Mode, NormalizedName, Releases, Rule
from pypiserver_ng.policy import Advisories, Decision, Origin, Policy, parse_record

DECISIONS = (
    ("acme-core", True, True, Origin.LOCAL, "shadow"),
    ("acme-core", True, False, Origin.LOCAL, "shadow"),
    ("requests", True, True, Origin.LOCAL, "shadow"),
    ("acme-core", False, True, Origin.NOBODY, "reserve acme-*"),
    ("acme-core", False, False, Origin.NOBODY, "reserve acme-*"),
    ("acme", False, True, Origin.UPSTREAM, "fallback"),
    ("not-acme-core", False, True, Origin.UPSTREAM, "fallback"),
    ("internal", False, True, Origin.NOBODY, "reserve internal"),
    ("internal2", False, True, Origin.UPSTREAM, "fallback"),
    ("requests", False, True, Origin.UPSTREAM, "fallback"),
    ("requests", False, False, Origin.NOBODY, "disable-fallback"),
)


@pytest.mark.parametrize(("name", "is_local", "fallback", "origin", "rule"), DECISIONS)
def test_who_answers(name: str, is_local: bool, fallback: bool, origin: Origin, rule: str) -> None:
    """A local file decides first, then the reserved names, then the fallback; the reason names the project."""
    policy = Policy(reserve=("acme-*", "internal"), fallback=fallback)
    decision = policy.decide(NormalizedName(name), is_local=is_local)
    assert (decision.origin, decision.rule) == (origin, rule)
    assert name in decision.reason


def releases(text: str, specifier: str = "") -> Releases:
    return Releases(text + specifier, text, SpecifierSet(specifier) if specifier else None)


MALWARE = Advisories(
    record
    for content in (
        b'{"id": "MAL-2026-1", "affected": [{"package": {"ecosystem": "PyPI", "name": "Bad_Whole"}}]}',
        b'{"id": "MAL-2026-2", "affected": [{"package": {"ecosystem": "PyPI", "name": "partly"}, "versions": ["1"]}]}',
    )
    for record in parse_record(content)
)
RULES = (
    Rule("first", ("acme-*", "bad-whole"), upstreams=()),
    Rule("second", ("num*",), upstreams=("b", "a"), max_age=5, merge=True),
    Rule("third", ("old",), mode=Mode.REDIRECT, upstreams=("b",)),
    Rule("fourth", ("listed-*",), allow=(releases("listed-a", ">=2"), releases("other"))),
    Rule("fifth", ("merged-no",), merge=False),
    Rule("exact", ("x-exact",), max_age=7),
    Rule("sixth", ("x-*", "acme-*", "num*"), deny=(releases("x-bad"), releases("x-old", "<2")), merge=True),
)
POLICY = Policy(
    reserve=("num-own", "x-own"),
    upstreams=("a", "b", "c"),
    mode=Mode.CACHE,
    merge=("merged-*", "old", "bad-whole"),
    rules=RULES,
    advisories=MALWARE,
    default_max_age=60,
)
ABSENT = (
    ("plain", Origin.UPSTREAM, "fallback", ("a", "b", "c"), Mode.CACHE, 60),
    ("partly", Origin.UPSTREAM, "fallback", ("a", "b", "c"), Mode.CACHE, 60),
    ("merged-no", Origin.UPSTREAM, "fifth", ("a", "b", "c"), Mode.CACHE, 60),
    ("num-py", Origin.UPSTREAM, "second", ("b", "a"), Mode.CACHE, 5),
    ("old", Origin.UPSTREAM, "third", ("b",), Mode.REDIRECT, 60),
    ("listed-a", Origin.UPSTREAM, "fourth", ("a", "b", "c"), Mode.CACHE, 60),
    ("x-old", Origin.UPSTREAM, "sixth", ("a", "b", "c"), Mode.CACHE, 60),
    ("x-exact", Origin.UPSTREAM, "exact", ("a", "b", "c"), Mode.CACHE, 7),
    ("listed-b", Origin.NOBODY, "fourth", (), Mode.REDIRECT, 600),
    ("acme-x", Origin.NOBODY, "first", (), Mode.REDIRECT, 600),
    ("num-own", Origin.NOBODY, "reserve num-own", (), Mode.REDIRECT, 600),
)


@pytest.mark.parametrize(("name", "origin", "rule", "upstreams", "mode", "max_age"), ABSENT)
def test_who_answers_for_what_is_not_here(
    name: str, origin: Origin, rule: str, upstreams: tuple[str, ...], mode: Mode, max_age: int
) -> None:
    """The first entry that matches decides alone, and the flags say what it leaves out."""
    decision = POLICY.decide(NormalizedName(name), is_local=False)
    assert decision == Decision(origin, rule, decision.reason, mode=mode, upstreams=upstreams, max_age=max_age)
    assert decision.reason.startswith(f"{name} ")
    assert decision.reason.isprintable()


DENIED = (("x-bad", "deny x-bad"), ("bad-whole", "osv MAL-2026-1"))


@pytest.mark.parametrize(("name", "rule"), DENIED)
def test_a_project_that_is_denied_as_a_whole(name: str, rule: str) -> None:
    """Nothing of it is asked, also where it would have no upstream anyway."""
    decision = POLICY.decide(NormalizedName(name), is_local=False)
    assert (decision.origin, decision.rule, decision.is_denied, decision.upstreams) == (Origin.NOBODY, rule, True, ())
    assert name in decision.reason


LOCAL = (
    ("plain", Origin.LOCAL, "shadow"),
    ("merged-yes", Origin.MERGED, "--merge merged-*"),
    ("merged-no", Origin.LOCAL, "shadow"),
    ("num-py", Origin.MERGED, "second"),
    ("x-a", Origin.MERGED, "sixth"),
    # Not in redirect mode.
    ("old", Origin.LOCAL, "shadow"),
    # Merged, but what would come is kept out.
    ("num-own", Origin.LOCAL, "reserve num-own"),
    ("x-bad", Origin.LOCAL, "deny x-bad"),
    ("bad-whole", Origin.LOCAL, "osv MAL-2026-1"),
)


@pytest.mark.parametrize(("name", "origin", "rule"), LOCAL)
def test_who_answers_for_what_is_here(name: str, origin: Origin, rule: str) -> None:
    """Nobody but the index itself, unless somebody wrote that it is merged."""
    decision = POLICY.decide(NormalizedName(name), is_local=True)
    assert (decision.origin, decision.rule, decision.is_denied) == (origin, rule, False)
    assert bool(decision.upstreams) is (origin is Origin.MERGED)
    assert decision.mode is (Mode.CACHE if origin is Origin.MERGED else Mode.REDIRECT)
    assert name in decision.reason


@pytest.mark.parametrize("name", ("plain", "merged-yes", "num-py", "x-bad", "bad-whole", "num-own"))
@pytest.mark.parametrize("is_local", (True, False))
def test_quarantine_comes_first(name: str, is_local: bool) -> None:
    """Whatever else is said of the project."""
    decision = POLICY.decide(NormalizedName(name), is_local=is_local, is_quarantined=True)
    assert (decision.origin, decision.rule) == (Origin.LOCAL, "quarantine")


def test_merging_needs_cache_mode() -> None:
    """Clients that are redirected cannot be given both."""
    decide = Policy(merge=("*",), mode=Mode.REDIRECT).decide
    assert decide(NormalizedName("x"), is_local=True).origin is Origin.LOCAL


def test_without_upstreams_there_is_no_fallback() -> None:
    """An entry cannot name one then."""
    policy = Policy(upstreams=(), mode=Mode.CACHE, rules=RULES)
    assert policy.decide(NormalizedName("num-py"), is_local=False).rule == "disable-fallback"
    assert not policy.needs_cache


def test_new_records_leave_the_old_policy_alone() -> None:
    """Whoever asks it at this moment gets one answer."""
    name = NormalizedName("plain")
    content = b'{"id": "MAL-2026-3", "affected": [{"package": {"ecosystem": "PyPI", "name": "plain"}}]}'
    newer = POLICY.with_advisories(Advisories(parse_record(content)))
    assert newer.decide(name, is_local=False).is_denied
    assert not POLICY.decide(name, is_local=False).is_denied
    assert not newer.decide(NormalizedName("partly"), is_local=False).is_denied
    assert newer.reserve == POLICY.reserve


@pytest.mark.parametrize(
    ("policy", "needs"),
    (
        (Policy(), False),
        (Policy(mode=Mode.CACHE), True),
        (Policy(mode=Mode.CACHE, fallback=False), False),
        (Policy(rules=(Rule("a", ("x",), mode=Mode.CACHE),)), True),
        (Policy(rules=(Rule("a", ("x",)),)), False),
    ),
)
def test_who_needs_a_cache(policy: Policy, needs: bool) -> None:
    """Whoever may fetch a file of any project."""
    assert policy.needs_cache is needs

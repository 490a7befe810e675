"""Shadow, reserve, fallback: the first that matches decides, and says so."""

import pytest

from pypiserver_ng.model import NormalizedName
from pypiserver_ng.policy import Origin, Policy

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

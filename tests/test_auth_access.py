"""Who may do what with which projects: `[[access]]` entries and the tokens' own rights, as values."""

from datetime import UTC, datetime

import pytest

from pypiserver_ng.auth import Access, find_useless_grants
from pypiserver_ng.model import ANONYMOUS, Action, Grant, Identity, NormalizedName, Right, Token

READ = frozenset({Right.LIST, Right.DOWNLOAD})
ALL = frozenset(Right)
ALICE, BOB = Identity("alice"), Identity("bob")


def grant(who: str, projects: str, may: frozenset[Right]) -> Grant:
    return Grant("", frozenset(who.split()), tuple(projects.split()), may)


def token(name: str = "deploy", projects: str = "acme-*", actions: str = "update") -> Identity:
    found = Token(
        "0" * 16,
        name,
        b"",
        tuple(projects.split()),
        frozenset(Action(word) for word in actions.split()),
        datetime(2026, 1, 1, tzinfo=UTC),
    )
    return Identity(found.user, found)


ACCESS = Access(
    (
        grant("alice", "acme-secret", frozenset()),
        grant("alice ci", "acme-*", ALL),
        grant("token:narrow", "acme-*", READ | {Right.UPLOAD}),
        grant("anyone", "public-* shared", READ),
        grant("bob", "*", READ | {Right.YANK}),
    )
)


@pytest.mark.parametrize(
    ("identity", "project", "rights"),
    (
        # The first entry that matches decides, also where it gives nothing.
        (ALICE, "acme-core", "list download upload create yank delete"),
        (ALICE, "acme-secret", ""),
        (ALICE, "public-a", "list download"),
        (ALICE, "other", ""),
        (BOB, "acme-core", "list download yank"),
        (BOB, "public-a", "list download"),
        (ANONYMOUS, "public-a", "list download"),
        (ANONYMOUS, "shared", "list download"),
        (ANONYMOUS, "shared-not", ""),
        (ANONYMOUS, "acme-core", ""),
        (Identity("ci"), "acme-secret", "list download upload create yank delete"),
        (Identity("nobody"), "public-a", "list download"),
        # A token has its own rights and what anyone has.
        (token(), "acme-core", "upload create"),
        (token(), "other", ""),
        (token(), "public-a", "list download"),
        (token(actions="list download update", projects="*"), "other", "list download upload create"),
        (token(actions="list"), "acme-core", "list"),
        # An entry that names it takes of them, and gives none.
        (token("narrow", actions="list update"), "acme-core", "list upload"),
        (token("narrow", actions="list update", projects="other"), "acme-core", ""),
        (token("narrow", actions="list update", projects="other"), "other", "list upload create"),
    ),
)
def test_rights(identity: Identity, project: str, rights: str) -> None:
    """Asked for one by one, twice, so that what is remembered counts too."""
    for _ in range(2):
        allowed = [right.value for right in Right if ACCESS.allows(identity, right, NormalizedName(project))]
        assert allowed == rights.split()


@pytest.mark.parametrize(
    ("identity", "rights"),
    (
        (ALICE, "list download upload create yank delete"),
        (BOB, "list download yank"),
        (ANONYMOUS, "list download"),
        (token(), "list download upload create"),
    ),
)
def test_rights_somewhere(identity: Identity, rights: str) -> None:
    """Before it is known which project is meant."""
    assert [right.value for right in Right if ACCESS.allows_somewhere(identity, right)] == rights.split()


def test_views() -> None:
    """Callers for whom the same entries are see the same projects; others may not."""
    assert ACCESS.view(Identity("x")) == ACCESS.view(ANONYMOUS)
    assert len({ACCESS.view(one) for one in (ALICE, BOB, ANONYMOUS, token())}) == 4


LABELLED = tuple(
    Grant(f"number {number}", frozenset(who.split()), tuple(projects.split()), may)
    for number, (who, projects, may) in enumerate(
        (
            ("alice alce", "acme-* tools", READ),
            ("alice", "tools", ALL),
            ("alice", "tools other", ALL),
            ("token:ci", "acme-*", READ),
            ("anyone", "*", READ),
            ("bob", "acme-*", ALL),
            ("token:ci", "*", READ),
        ),
        1,
    )
)


def test_entries_without_effect() -> None:
    """Never reached, or for somebody who is not there; without a password file only the former can be told."""
    unreached = [
        "number 2 is never reached: number 1 decides before it",
        "number 6 is never reached: number 5 decides before it",
    ]
    assert find_useless_grants(LABELLED, None) == unreached
    missing = "number 1 names 'alce', who cannot log in by the password file"
    assert find_useless_grants(LABELLED, {"alice", "bob"}) == [missing, *unreached]

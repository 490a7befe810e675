"""The `[[access]]` entries: who may do what with which projects.

Values only: must not know headers, passwords, or where a project lies.
"""

from collections.abc import Collection, Sequence
from functools import lru_cache

from pypiserver_ng.model import ANYONE, Grant, Identity, NormalizedName, Right, Token
from pypiserver_ng.policy.patterns import Patterns

#: What a token's actions amount to; the others no token has by itself.
_OF_TOKENS = frozenset({Right.LIST, Right.DOWNLOAD, Right.UPLOAD, Right.CREATE})
#: Decisions that are remembered, so that a rule is not looked for at each request.
_MOST_REMEMBERED = 10_000

#: One caller's entries: what may be done, for the first that matches a project.
_View = Patterns[frozenset[Right]]


class Access:
    """Without entries it decides nothing: ask `is_empty` first."""

    def __init__(self, grants: Sequence[Grant]) -> None:
        self._grants = grants
        self.is_empty = not grants
        self._views: dict[frozenset[str], _View] = {}
        self._decisions: dict[tuple[frozenset[str], NormalizedName], frozenset[Right]] = {}

    def allows(self, identity: Identity, right: Right, name: NormalizedName) -> bool:
        if identity.token is None:
            return right in self._may(_callers(identity), name)
        return self._allows_token(identity, identity.token, right, name)

    def allows_somewhere(self, identity: Identity, right: Right) -> bool:
        """Whether there may be a project for which it is allowed."""
        callers = _callers(identity)
        if identity.token is not None and is_within(identity.token, right):
            return True
        return any(right in grant.may for grant in self._grants if grant.who & callers)

    def view(self, identity: Identity) -> object:
        """Equal for callers who see the same projects."""
        if identity.token is not None:
            return identity.token.id
        callers = _callers(identity)
        return frozenset(number for number, grant in enumerate(self._grants) if grant.who & callers)

    def _allows_token(self, identity: Identity, token: Token, right: Right, name: NormalizedName) -> bool:
        """A token has what it was made for, less what entries that name it leave out; and what anyone has."""
        if right in self._may(frozenset({ANYONE}), name):
            return True
        if not is_for(token, right, name):
            return False
        assert identity.user is not None
        named = self._view(frozenset({identity.user})).find(name)
        return named is None or right in named

    def _may(self, callers: frozenset[str], name: NormalizedName) -> frozenset[Right]:
        key = callers, name
        found = self._decisions.get(key)
        if found is None:
            if len(self._decisions) >= _MOST_REMEMBERED:
                self._decisions.clear()
            found = self._decisions[key] = self._view(callers).find(name) or frozenset()
        return found

    def _view(self, callers: frozenset[str]) -> _View:
        view = self._views.get(callers)
        if view is None:
            if len(self._views) >= _MOST_REMEMBERED:
                self._views.clear()
            pairs = [(glob, grant.may) for grant in self._grants if grant.who & callers for glob in grant.projects]
            view = self._views[callers] = Patterns(pairs)
        return view


def find_useless_grants(grants: Sequence[Grant], users: Collection[str] | None) -> list[str]:
    """A line for each entry that is never reached, and for each of its users who cannot log in; None = not known."""
    lines = []
    for number, grant in enumerate(grants):
        if (earlier := next((one for one in grants[:number] if _covers(one, grant)), None)) is not None:
            lines.append(f"{grant.label} is never reached: {earlier.label} decides before it")
        persons = sorted(who for who in grant.who if ":" not in who and who != ANYONE)
        missing = [who for who in persons if users is not None and who not in users]
        lines += [f"{grant.label} names {who!r}, who cannot log in by the password file" for who in missing]
    return lines


def _covers(earlier: Grant, later: Grant) -> bool:
    """Whether the first decides wherever the second would. What an entry says of tokens that it names is their own."""
    is_for_all = ANYONE in earlier.who and all(":" not in who for who in later.who)
    who = is_for_all or later.who <= earlier.who
    return who and ("*" in earlier.projects or set(later.projects) <= set(earlier.projects))


def is_within(token: Token, right: Right) -> bool:
    """Whether a token has a right for some project by itself."""
    return right in _OF_TOKENS and right.action in token.actions


def is_for(token: Token, right: Right, name: NormalizedName) -> bool:
    """Whether a token has a right for this project by itself."""
    return is_within(token, right) and _compile(token.projects).find(name) is not None


@lru_cache(1024)
def _compile(projects: tuple[str, ...]) -> Patterns[bool]:
    return Patterns((glob, True) for glob in projects)


def _callers(identity: Identity) -> frozenset[str]:
    return frozenset({ANYONE, identity.user} if identity.user is not None else {ANYONE})

"""What of the `[[policy]]` entries has no effect, one line each, for whoever wrote them. The moment is an argument."""

import fnmatch
from collections.abc import Iterator, Sequence
from datetime import datetime

from pypiserver_ng.model import Exemption, Releases, Rule
from pypiserver_ng.policy.patterns import Patterns, is_plain
from pypiserver_ng.policy.wording import describe_moment


def find_useless(rules: Sequence[Rule], now: datetime) -> list[str]:
    """Entries that are never reached, releases that are none of their entry's projects, exemptions that have ended."""
    lines = _find_unreached(rules)
    for rule in rules:
        lines += _find_strangers(rule)
        lines += [_describe_end(rule, one, one.until) for one in rule.exempt if one.until and one.until <= now]
    return lines


def _find_unreached(rules: Sequence[Rule]) -> list[str]:
    patterns = Patterns((glob, number) for number, rule in enumerate(rules) for glob in rule.projects)
    first: dict[str, int] = {}
    everything = len(rules)
    lines = []
    for number, rule in enumerate(rules):
        for glob in rule.projects:
            first.setdefault(glob, number)
            if set(glob) == {"*"}:
                everything = min(everything, number)
        if everything < number or all(_first(glob, patterns, first) < number for glob in rule.projects):
            lines.append(f"{rule.label} is never reached, because entries before it match its projects: move it up")
    return lines


def _first(glob: str, patterns: Patterns[int], first: dict[str, int]) -> int:
    """The number of the first entry that surely matches all that the pattern does."""
    found = patterns.find(glob) if is_plain(glob) else None
    return first[glob] if found is None else found


def _find_strangers(rule: Rule) -> Iterator[str]:
    """Named releases that are of no project of the entry, as far as two patterns can be compared."""
    projects = Patterns((glob, glob) for glob in rule.projects)
    are_plain = all(map(is_plain, rule.projects))
    named: dict[str, Sequence[Releases]] = {
        "exempt": [one.releases for one in rule.exempt],
        "allow": rule.allow or (),
        "deny": rule.deny,
    }
    for key, several in named.items():
        for releases in several:
            glob = releases.projects
            if is_plain(glob):
                is_known = projects.find(glob) is not None
            else:
                is_known = not are_plain or bool(fnmatch.filter(rule.projects, glob))
            if not is_known:
                yield f"{rule.label}: {key!r} names {releases.text!r}, which is none of its projects"


def _describe_end(rule: Rule, exemption: Exemption, until: datetime) -> str:
    return (
        f"{rule.label}: the exemption of {exemption.releases.text!r} has ended at {describe_moment(until)}: remove it"
    )

"""Rules become decisions with reasons. No clock, no socket, no store: facts are arguments.

The shadow rule lives here: one local file of any version answers for the whole project, and nothing of it
is asked from upstream.
"""

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from pypiserver_ng.model import NormalizedName, Status


class Origin(StrEnum):
    """Who answers for a project."""

    LOCAL = "local"
    UPSTREAM = "upstream"
    NOBODY = "nobody"


@dataclass(frozen=True, slots=True)
class Decision:
    origin: Origin
    #: The rule that decided, as its owner wrote it.
    rule: str
    #: One sentence for people.
    reason: str


class Policy:
    """The ordered rules of one server: quarantine, shadow, reserve, fallback; the first that matches decides."""

    def __init__(self, *, reserve: Sequence[str] = (), fallback: bool = True) -> None:
        self.reserve = tuple(reserve)
        self._reserved = [(glob, re.compile(fnmatch.translate(glob))) for glob in reserve]
        self._fallback = fallback

    def decide(self, name: NormalizedName, *, is_local: bool, is_quarantined: bool = False) -> Decision:
        if is_quarantined:
            return Decision(Origin.LOCAL, "quarantine", f"{name} is quarantined here, so nobody offers a file of it")
        if is_local:
            return Decision(Origin.LOCAL, "shadow", f"{name} has files here, so upstream is never asked for it")
        for glob, pattern in self._reserved:
            if pattern.match(name):
                return Decision(
                    Origin.NOBODY, f"reserve {glob}", f"{name} is reserved by {glob!r} and has no file here"
                )
        if not self._fallback:
            return Decision(Origin.NOBODY, "disable-fallback", f"{name} has no file here and the fallback is off")
        return Decision(Origin.UPSTREAM, "fallback", f"{name} has no file here, so the fallback answers for it")


def describe_status(name: NormalizedName, status: Status, reason: str | None) -> str:
    """A project's status as the beginning of a sentence for people."""
    return f"{name} is {status}" + (f" ({reason})" if reason else "")

"""What the rules say, as frozen values: who answers for a project, and which of its files are offered until when."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from pypiserver_ng.model import Mode, UpstreamFile


class Origin(StrEnum):
    """Who answers for a project."""

    LOCAL = "local"
    UPSTREAM = "upstream"
    #: Local files and upstream's together.
    MERGED = "merged"
    NOBODY = "nobody"


@dataclass(frozen=True, slots=True)
class Decision:
    origin: Origin
    #: The rule that decided, as its owner wrote it.
    rule: str
    #: One sentence for people.
    reason: str
    mode: Mode = Mode.REDIRECT
    #: Names, in the order in which they are asked; empty where upstream is not asked.
    upstreams: tuple[str, ...] = ()
    #: Seconds that an upstream's page is taken for fresh.
    max_age: int = 600
    #: Whether the project as a whole is denied: then nothing is asked, and its page is empty.
    is_denied: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether one file of an upstream is offered."""

    is_offered: bool
    #: The rule that decided, as its owner wrote it.
    rule: str
    #: One printable line for people.
    reason: str
    #: When the clock alone may change it; None = never.
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class View:
    """The files of a project as the rules show them, both in the order of the upstream's page."""

    offered: tuple[UpstreamFile, ...]
    withheld: tuple[tuple[UpstreamFile, Verdict], ...]
    #: The first moment at which the clock alone may change it; None = never.
    until: datetime | None = None

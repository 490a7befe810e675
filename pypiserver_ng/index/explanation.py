"""Why a project is answered as it is: which rule decided, what is hidden, and until when. Values only."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pypiserver_ng.filenames import is_same_version, sort_key
from pypiserver_ng.model import Listed, NormalizedName, Sight, UpstreamFile
from pypiserver_ng.pages import format_time
from pypiserver_ng.policy import Decision, Verdict


@dataclass(frozen=True, slots=True)
class ExplainedFile:
    """What becomes of one file."""

    filename: str
    version: str
    is_offered: bool
    rule: str
    reason: str
    #: When that changes by itself; None = not by the clock.
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    project: NormalizedName
    decision: Decision
    #: Name of the upstream that answers, where one does.
    upstream: str | None
    files: tuple[ExplainedFile, ...]
    #: What else there is to know, such as that the upstream cannot be asked now.
    note: str | None = None

    @property
    def until(self) -> datetime | None:
        """When the first of these answers changes by the clock."""
        return min((file.until for file in self.files if file.until), default=None)

    def of_version(self, version: str) -> "Explanation":
        files = tuple(file for file in self.files if is_same_version(file.version, version))
        note = self.note if files else self.note or f"no file of {self.project} {version[:100]!a} is known"
        return Explanation(self.project, self.decision, self.upstream, files, note)

    def seen_by(self, sight: Sight) -> "Explanation":
        if sight.reaches is None:
            return self
        files = tuple(file for file in self.files if sight.reaches(file.version))
        return Explanation(self.project, self.decision, self.upstream, files, self.note)


def explain_offered(files: Iterable[Listed], decision: Decision) -> list[ExplainedFile]:
    """Files that are offered because the project's decision says so."""
    return [ExplainedFile(file.filename, file.version, True, decision.rule, "it is offered") for file in files]


def explain_judged(judged: Iterable[tuple[UpstreamFile, Verdict]]) -> list[ExplainedFile]:
    return [
        ExplainedFile(file.filename, file.version, verdict.is_offered, verdict.rule, verdict.reason, verdict.until)
        for file, verdict in judged
    ]


def explain_shadowed(files: Iterable[UpstreamFile], decision: Decision) -> list[ExplainedFile]:
    """Files that an upstream had when it was last asked, and that are not offered at all now."""
    return [ExplainedFile(file.filename, file.version, False, decision.rule, decision.reason) for file in files]


def sort_files(files: Iterable[ExplainedFile]) -> tuple[ExplainedFile, ...]:
    """Newest version first."""
    return tuple(sorted(files, key=lambda file: (sort_key(file.version), file.filename), reverse=True))


def describe_explanation(explanation: Explanation) -> dict[str, Any]:
    """An explanation as JSON has it."""
    decision = explanation.decision
    return {
        "project": explanation.project,
        "decision": {"origin": decision.origin.value, "rule": decision.rule, "reason": decision.reason},
        "upstream": explanation.upstream,
        "note": explanation.note,
        "until": format_time(explanation.until) if explanation.until else None,
        "files": [_describe_file(file) for file in explanation.files],
    }


def _describe_file(file: ExplainedFile) -> dict[str, Any]:
    return {
        "filename": file.filename,
        "version": file.version,
        "offered": file.is_offered,
        "rule": file.rule,
        "reason": file.reason,
        "until": format_time(file.until) if file.until else None,
    }

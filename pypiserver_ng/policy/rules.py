"""The ordered rules of one server, from its flags and its `[[policy]]` entries."""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from pypiserver_ng.model import Mode, NormalizedName, Releases, Rule, UpstreamFile
from pypiserver_ng.policy.advisories import NO_ADVISORIES, Advisories
from pypiserver_ng.policy.decisions import Decision, Origin, Verdict, View
from pypiserver_ng.policy.judging import Judge, Ruling
from pypiserver_ng.policy.patterns import Patterns
from pypiserver_ng.policy.wording import write_duration


class Policy:
    """Quarantine, shadow, reserve, denials, then the first entry that matches; the flags say what it leaves out."""

    def __init__(
        self,
        *,
        reserve: Sequence[str] = (),
        fallback: bool = True,
        upstreams: Sequence[str] = ("upstream",),
        mode: Mode = Mode.REDIRECT,
        merge: Sequence[str] = (),
        cooldown: int | None = None,
        rules: Sequence[Rule] = (),
        advisories: Advisories = NO_ADVISORIES,
        default_max_age: int = 600,
    ) -> None:
        self.reserve = tuple(reserve)
        self.advisories = advisories
        self._reserved = Patterns((glob, glob) for glob in reserve)
        self._merged = Patterns((glob, f"--merge {glob}") for glob in merge)
        self._fallback = fallback and bool(upstreams)
        cooldown_rule = f"--cooldown {write_duration(cooldown)}" if cooldown else ""
        self._flags = Ruling(
            label="fallback",
            upstreams=tuple(upstreams),
            mode=mode,
            merge=None,
            cooldown=cooldown or 0,
            cooldown_rule=cooldown_rule,
            freeze=None,
            max_age=default_max_age,
            exempt=Patterns(()),
            allow=None,
            deny=Patterns(()),
        )
        rulings = [(rule, _resolve(rule, self._flags)) for rule in rules]
        self._rulings = Patterns((glob, ruling) for rule, ruling in rulings for glob in rule.projects)
        #: Whether files of any project may be fetched and kept.
        self.needs_cache = self._fallback and any(
            ruling.mode is Mode.CACHE for ruling in (self._flags, *(ruling for _, ruling in rulings))
        )

    def with_advisories(self, advisories: Advisories) -> "Policy":
        """The same rules with other records of malware."""
        other = copy.copy(self)
        other.advisories = advisories
        return other

    def decide(self, name: NormalizedName, *, is_local: bool, is_quarantined: bool = False) -> Decision:
        """Who answers for the project."""
        if is_quarantined:
            return Decision(Origin.LOCAL, "quarantine", f"{name} is quarantined here, so nobody offers a file of it")
        if not is_local:
            return self._decide_absent(name)
        merge = self._find_merge(name)
        if merge is None:
            return Decision(Origin.LOCAL, "shadow", f"{name} has files here, so upstream is never asked for it")
        other = self._decide_absent(name)
        if other.origin is not Origin.UPSTREAM:
            return Decision(Origin.LOCAL, other.rule, f"{name} has files here, and {other.rule} outweighs {merge}")
        reason = f"{name} has files here, and {merge} lists those of upstream with them"
        return replace(other, origin=Origin.MERGED, rule=merge, reason=reason)

    def judge(self, file: UpstreamFile, now: datetime) -> Verdict:
        """Whether the file is offered, if upstream answers for its project at all."""
        return self._judge_of(file.project).judge(file, now)

    def view(self, name: NormalizedName, files: Iterable[UpstreamFile], now: datetime) -> View:
        """The project's files as they are offered at this moment."""
        offered: list[UpstreamFile] = []
        withheld: list[tuple[UpstreamFile, Verdict]] = []
        until: datetime | None = None
        for file, verdict in self.judge_all(name, files, now):
            if verdict.is_offered:
                offered.append(file)
            else:
                withheld.append((file, verdict))
            if verdict.until is not None and (until is None or verdict.until < until):
                until = verdict.until
        return View(tuple(offered), tuple(withheld), until)

    def judge_all(
        self, name: NormalizedName, files: Iterable[UpstreamFile], now: datetime
    ) -> list[tuple[UpstreamFile, Verdict]]:
        """Every file of a project with its verdict at this moment, in their order."""
        judge = self._judge_of(name)
        return [(file, judge.judge(file, now)) for file in files]

    def _judge_of(self, name: NormalizedName) -> Judge:
        return Judge(name, self._ruling_of(name), self.advisories)

    def _ruling_of(self, name: NormalizedName) -> Ruling:
        return self._rulings.find(name) or self._flags

    def _find_merge(self, name: NormalizedName) -> str | None:
        """Who says that the project's files are listed together with those of upstream."""
        ruling = self._ruling_of(name)
        if ruling.mode is not Mode.CACHE or ruling.merge is False:
            return None
        return ruling.label if ruling.merge else self._merged.find(name)

    def _decide_absent(self, name: NormalizedName) -> Decision:
        """Who answers for a project that has no file here, or for what upstream has of it."""
        if glob := self._reserved.find(name):
            return _nobody(f"reserve {glob}", f"{name} is reserved by {glob!r} and has no file here")
        if not self._fallback:
            return _nobody("disable-fallback", f"{name} has no file here and the fallback is off")
        ruling = self._ruling_of(name)
        if releases := _denied_whole(ruling, name):
            reason = f"{name} is denied by {releases.text!r} of {ruling.label}"
            return replace(_nobody(f"deny {releases.text}", reason), is_denied=True)
        if advisory := self.advisories.covers_all(name):
            reason = f"every version of {name} is named as malware by {advisory.id}"
            return replace(_nobody(f"osv {advisory.id}", reason), is_denied=True)
        if not ruling.upstreams:
            return _nobody(ruling.label, f"{name} has no file here and {ruling.label} gives it no upstream")
        if ruling.allow is not None and not ruling.allow.find_all(name):
            return _nobody(ruling.label, f"{name} has no file here and is not among what {ruling.label} allows")
        who = "the fallback answers for it" if ruling is self._flags else f"{ruling.label} decides who answers for it"
        return Decision(
            Origin.UPSTREAM,
            ruling.label,
            f"{name} has no file here, so {who}",
            mode=ruling.mode,
            upstreams=ruling.upstreams,
            max_age=ruling.max_age,
        )


def _nobody(rule: str, reason: str) -> Decision:
    return Decision(Origin.NOBODY, rule, reason)


def _denied_whole(ruling: Ruling, name: NormalizedName) -> Releases | None:
    return next((releases for releases in ruling.deny.find_all(name) if releases.specifier is None), None)


def _resolve(rule: Rule, flags: Ruling) -> Ruling:
    return Ruling(
        label=rule.label,
        upstreams=flags.upstreams if rule.upstreams is None else rule.upstreams,
        mode=rule.mode or flags.mode,
        merge=rule.merge,
        cooldown=flags.cooldown if rule.cooldown is None else rule.cooldown,
        cooldown_rule=flags.cooldown_rule if rule.cooldown is None else rule.label,
        freeze=rule.freeze,
        max_age=flags.max_age if rule.max_age is None else rule.max_age,
        exempt=Patterns((one.releases.projects, one) for one in rule.exempt),
        allow=None if rule.allow is None else Patterns((one.projects, one) for one in rule.allow),
        deny=Patterns((one.projects, one) for one in rule.deny),
    )

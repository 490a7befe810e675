"""One project's files before its rule: denied, not allowed, too young, or offered. Knows no other project."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from packaging.version import Version

from pypiserver_ng.model import Exemption, Mode, NormalizedName, Releases, UpstreamFile
from pypiserver_ng.policy.advisories import Advisories, read_version
from pypiserver_ng.policy.decisions import Verdict
from pypiserver_ng.policy.patterns import Patterns
from pypiserver_ng.policy.wording import describe_duration, describe_moment

_LAST_MOMENT = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Ruling:
    """A rule in which the flags have said what it left out."""

    label: str
    upstreams: tuple[str, ...]
    mode: Mode
    #: None = the flags say it by the project's name.
    merge: bool | None
    #: Seconds; 0 = off.
    cooldown: int
    #: Who said so, as its owner wrote it.
    cooldown_rule: str
    freeze: datetime | None
    max_age: int
    exempt: Patterns[Exemption]
    #: None = everything.
    allow: Patterns[Releases] | None
    deny: Patterns[Releases]


class Judge:
    """Made for one project and one moment's advisories; what depends on the version alone is found once for each."""

    def __init__(self, project: NormalizedName, ruling: Ruling, advisories: Advisories) -> None:
        self._project = project
        self._ruling = ruling
        self._advisories = advisories
        self._exempt = ruling.exempt.find_all(project)
        self._allow = None if ruling.allow is None else ruling.allow.find_all(project)
        self._deny = ruling.deny.find_all(project)
        self._standings: dict[str, tuple[Verdict, Sequence[Exemption]]] = {}

    def judge(self, file: UpstreamFile, now: datetime) -> Verdict:
        """The verdict at this moment, and until when the clock leaves it so."""
        standing = self._standings.get(file.version)
        if standing is None:
            standing = self._standings[file.version] = self._weigh(file)
        verdict, exemptions = standing
        if not verdict.is_offered:
            return verdict
        withheld = self._withhold(file, now)
        if withheld is None:
            return verdict
        living = [one for one in exemptions if one.until is None or now < one.until]
        return _exempt(max(living, key=_end), file, withheld) if living else withheld

    def _weigh(self, file: UpstreamFile) -> tuple[Verdict, Sequence[Exemption]]:
        """What the version alone decides, and what lets it pass where its age is against it."""
        version = read_version(file.version)
        refused = self._refuse(file, version)
        if refused is not None:
            return refused, ()
        exemptions = [one for one in self._exempt if holds(one.releases, version, unreadable=False)]
        offered = Verdict(
            is_offered=True, rule=self._ruling.label, reason=f"{_name(file)} is offered: nothing is against it"
        )
        return offered, exemptions

    def _refuse(self, file: UpstreamFile, version: Version | None) -> Verdict | None:
        label = self._ruling.label
        for releases in self._deny:
            if holds(releases, version, unreadable=True):
                return _refusal(f"deny {releases.text}", f"{_name(file)} is denied by {releases.text!r} of {label}")
        if advisory := self._advisories.find(self._project, file.version):
            return _refusal(f"osv {advisory.id}", f"{_name(file)} is named as malware by {advisory.id}")
        if self._allow is not None and not any(holds(one, version, unreadable=False) for one in self._allow):
            return _refusal(label, f"{_name(file)} is not among what {label} allows")
        return None

    def _withhold(self, file: UpstreamFile, now: datetime) -> Verdict | None:
        """Whether its age is against it."""
        ruling, uploaded = self._ruling, file.upload_time
        if not ruling.cooldown and ruling.freeze is None:
            return None
        if uploaded is None:
            rule = ruling.cooldown_rule if ruling.freeze is None else ruling.label
            return _refusal(rule, f"the upstream gives no upload time of {_name(file)}, so its age cannot be known")
        if ruling.freeze is not None and uploaded >= ruling.freeze:
            frozen = describe_moment(ruling.freeze)
            return _refusal(
                ruling.label,
                f"{_name(file)} came after the freeze at {frozen} (uploaded {describe_moment(uploaded)})",
            )
        until = _add(uploaded, ruling.cooldown)
        if now >= until:
            return None
        reason = (
            f"{_name(file)} is younger than {describe_duration(ruling.cooldown)} "
            f"(uploaded {describe_moment(uploaded)}): offered from {describe_moment(until)} on"
        )
        return Verdict(is_offered=False, rule=ruling.cooldown_rule, reason=reason, until=until)


def holds(releases: Releases, version: Version | None, *, unreadable: bool) -> bool:
    """Whether the version is one of them. None is one that PEP 440 cannot read: no specifier can say what it is."""
    if releases.specifier is None:
        return True
    return unreadable if version is None else releases.specifier.contains(version, prereleases=True)


def _name(file: UpstreamFile) -> str:
    return f"{file.project} {file.version}" if file.version else file.filename


def _refusal(rule: str, reason: str) -> Verdict:
    return Verdict(is_offered=False, rule=rule, reason=reason)


def _end(exemption: Exemption) -> datetime:
    return exemption.until or _LAST_MOMENT


def _exempt(exemption: Exemption, file: UpstreamFile, withheld: Verdict) -> Verdict:
    text = exemption.releases.text
    reason = f"{_name(file)} is exempt by {text!r}" + (f": {exemption.reason}" if exemption.reason else "")
    if exemption.until is not None:
        reason += f" (until {describe_moment(exemption.until)})"
    # An exemption that outlives what it is from changes nothing when it ends.
    outlives = withheld.until is not None and withheld.until <= _end(exemption)
    return replace(
        withheld, is_offered=True, rule=f"exempt {text}", reason=reason, until=None if outlives else exemption.until
    )


def _add(moment: datetime, seconds: int) -> datetime:
    """The last moment there is, where the sum would be later."""
    try:
        return moment + timedelta(seconds=seconds)
    except OverflowError:
        return _LAST_MOMENT

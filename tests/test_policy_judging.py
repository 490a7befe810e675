"""One file of an upstream: denied, not allowed, too young, frozen out, exempt, or offered; and until when."""

from datetime import UTC, datetime, timedelta

import pytest
from packaging.specifiers import SpecifierSet

from pypiserver_ng.model import Exemption, Kind, Mode, NormalizedName, Releases, Rule, UpstreamFile
from pypiserver_ng.policy import Advisories, Policy, Verdict, View, parse_record

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
DAY = timedelta(days=1)
NUMPY = NormalizedName("numpy")
LABEL = "[[policy]] number 1 (*)"


def make_file(version: str = "2.4.2", uploaded: datetime | None = NOW - 10 * DAY, name: str = "numpy") -> UpstreamFile:
    filename = f"{name}-{version}.tar.gz" if version else f"{name}.zip"
    url = f"https://files.example/{filename}"
    return UpstreamFile(filename, NormalizedName(name), name, version, Kind.SDIST, url, upload_time=uploaded)


def releases(text: str, specifier: str = "") -> Releases:
    return Releases(text + specifier, text, SpecifierSet(specifier) if specifier else None)


def exempt(specifier: str = "", until: datetime | None = None, reason: str | None = None) -> Exemption:
    return Exemption(releases("numpy", specifier), until, reason)


def make_policy(
    *,
    cooldown: int | None = None,
    advisories: Advisories | None = None,
    freeze: datetime | None = None,
    exempt: tuple[Exemption, ...] = (),
    allow: tuple[Releases, ...] | None = None,
    deny: tuple[Releases, ...] = (),
) -> Policy:
    """One entry for everything."""
    rule = Rule(LABEL, ("*",), cooldown=cooldown, freeze=freeze, exempt=exempt, allow=allow, deny=deny)
    return Policy(mode=Mode.CACHE, rules=(rule,), advisories=advisories or Advisories())


def offered(rule: str, reason: str, until: datetime | None = None) -> Verdict:
    return Verdict(is_offered=True, rule=rule, reason=reason, until=until)


def withheld(rule: str, reason: str, until: datetime | None = None) -> Verdict:
    return Verdict(is_offered=False, rule=rule, reason=reason, until=until)


# Age.


def test_a_file_is_withheld_until_it_has_cooled_down() -> None:
    """The moment is told and kept to the microsecond."""
    policy = Policy(mode=Mode.CACHE, cooldown=345600)
    uploaded = datetime(2026, 11, 25, 10, tzinfo=UTC)
    file, until = make_file(uploaded=uploaded), datetime(2026, 11, 29, 10, tzinfo=UTC)
    young = withheld(
        "--cooldown 4d",
        "numpy 2.4.2 is younger than 4 days (uploaded 2026-11-25T10:00Z): offered from 2026-11-29T10:00Z on",
        until,
    )
    assert policy.judge(file, NOW) == young
    assert policy.judge(file, until - timedelta(microseconds=1)) == young
    assert policy.judge(file, until) == offered("fallback", "numpy 2.4.2 is offered: nothing is against it")


@pytest.mark.parametrize(
    ("seconds", "text"), ((86400, "1 day"), (129600, "36 hours"), (60, "1 minute"), (90, "90 seconds"))
)
def test_a_cooldown_in_words(seconds: int, text: str) -> None:
    """In the unit in which its owner thinks."""
    assert f"younger than {text} (" in make_policy(cooldown=seconds).judge(make_file(uploaded=NOW), NOW).reason


UNKNOWN_AGE = "the upstream gives no upload time of numpy 2.4.2, so its age cannot be known"
FROZEN = "numpy 2.4.2 came after the freeze at 2026-11-16T12:00:30Z (uploaded 2026-11-16T12:00:30Z)"
FREEZE = datetime(2026, 11, 16, 12, 0, 30, tzinfo=UTC)
SECOND = timedelta(seconds=1)
FUTURE = NOW + 30 * DAY
AGES = (
    (None, None, None, True, "", None),
    (None, None, FUTURE, True, "", None),
    (0, None, FUTURE, True, "", None),
    (60, None, None, False, UNKNOWN_AGE, None),
    (60, None, FUTURE, False, "is younger than 1 minute", FUTURE + timedelta(minutes=1)),
    (10**17, None, NOW - DAY, False, "is younger than", datetime.max.replace(tzinfo=UTC)),
    (None, FREEZE, None, False, UNKNOWN_AGE, None),
    (None, FREEZE, FREEZE, False, FROZEN, None),
    (None, FREEZE, FREEZE - SECOND, True, "", None),
    (60, FREEZE, FREEZE, False, FROZEN, None),
    (30 * 86400, FREEZE, FREEZE - SECOND, False, "is younger than 30 days", FREEZE - SECOND + 30 * DAY),
)


@pytest.mark.parametrize(("cooldown", "freeze", "uploaded", "is_offered", "reason", "until"), AGES)
def test_what_age_decides(
    cooldown: int | None,
    freeze: datetime | None,
    uploaded: datetime | None,
    is_offered: bool,
    reason: str,
    until: datetime | None,
) -> None:
    """Without an upload time nothing is young enough, and what a freeze withholds never comes back."""
    verdict = make_policy(cooldown=cooldown, freeze=freeze).judge(make_file(uploaded=uploaded), NOW)
    assert (verdict.is_offered, verdict.rule, verdict.until) == (is_offered, LABEL, until)
    assert reason in verdict.reason


def test_an_entry_says_how_long() -> None:
    """In place of the flag, which says it where the entry does not."""
    rules = (Rule("own", ("numpy",), cooldown=0), Rule("inherits", ("scipy",)))
    policy = Policy(mode=Mode.CACHE, cooldown=60, rules=rules)
    assert policy.judge(make_file(uploaded=None), NOW).is_offered
    assert policy.judge(make_file(uploaded=None, name="scipy"), NOW).rule == "--cooldown 1m"


# Exemptions.


END = NOW + 2 * DAY
EXEMPTIONS = (
    ((exempt("==2.4.2"),), "exempt numpy==2.4.2", "numpy 2.4.2 is exempt by 'numpy==2.4.2'", None),
    ((exempt(),), "exempt numpy", "numpy 2.4.2 is exempt by 'numpy'", None),
    (
        (exempt("<3", END, "a fix"),),
        "exempt numpy<3",
        "numpy 2.4.2 is exempt by 'numpy<3': a fix (until 2026-11-28T12:00Z)",
        END,
    ),
    # The longest counts.
    (
        (exempt("<3", END), exempt("<4", END + DAY), exempt("<5", NOW)),
        "exempt numpy<4",
        "until 2026-11-29T12",
        END + DAY,
    ),
    ((exempt("<3", END), exempt("<4")), "exempt numpy<4", "by 'numpy<4'", None),
    # It ends after the cooldown would have.
    ((exempt("<3", NOW + 40 * DAY),), "exempt numpy<3", "until 2027-01-05T12:00Z", None),
)


@pytest.mark.parametrize(("exemptions", "rule", "reason", "until"), EXEMPTIONS)
def test_an_exemption_lets_young_files_through(
    exemptions: tuple[Exemption, ...], rule: str, reason: str, until: datetime | None
) -> None:
    """As long as it holds, and as long as there is something to be exempt from."""
    verdict = make_policy(cooldown=30 * 86400, exempt=exemptions).judge(make_file(), NOW)
    assert (verdict.is_offered, verdict.rule, verdict.until) == (True, rule, until)
    assert reason in verdict.reason


@pytest.mark.parametrize("uploaded", (None, NOW, FUTURE))
def test_an_exemption_lets_frozen_files_through(uploaded: datetime | None) -> None:
    """And ends at its end."""
    policy = make_policy(freeze=NOW - DAY, exempt=(exempt("<3", END),))
    assert policy.judge(make_file(uploaded=uploaded), NOW).until == END
    assert not policy.judge(make_file(uploaded=uploaded), END).is_offered


NOT_EXEMPT = (
    (exempt("==2.4.1"), "2.4.2"),
    (exempt("<3", NOW), "2.4.2"),
    (exempt("<3", NOW - DAY), "2.4.2"),
    (exempt("!=1"), "2004d-odd"),
    (Exemption(releases("scipy")), "2.4.2"),
)


@pytest.mark.parametrize(("exemption", "version"), NOT_EXEMPT)
def test_what_is_not_exempt(exemption: Exemption, version: str) -> None:
    """Other releases, expired ones, and versions that nobody can compare."""
    verdict = make_policy(cooldown=30 * 86400, exempt=(exemption,)).judge(make_file(version), NOW)
    assert (verdict.is_offered, verdict.rule, verdict.until) == (False, LABEL, NOW + 20 * DAY)


def test_an_exemption_of_what_is_old_enough_is_not_mentioned() -> None:
    """Nothing hangs on it."""
    assert make_policy(cooldown=60, exempt=(exempt("<3", END),)).judge(make_file(), NOW) == offered(
        LABEL, "numpy 2.4.2 is offered: nothing is against it"
    )


# Lists.


DENIALS = (
    ("", "2.4.2", False),
    ("<2", "2.4.2", True),
    ("<3", "2.4.2", False),
    ("<3", "2.5rc1", False),
    ("<3", "2.4.2+local", False),
    ("==2.4.2", "2.4.2.0", False),
    ("==1", "2004d-odd", False),
    ("==1", "", False),
)


@pytest.mark.parametrize(("specifier", "version", "is_offered"), DENIALS)
def test_what_is_denied(specifier: str, version: str, is_offered: bool) -> None:
    """Pre-releases like any other; what PEP 440 cannot read is denied with any version."""
    policy = make_policy(deny=(releases("numpy", specifier), releases("scipy")), exempt=(exempt(),))
    verdict = policy.judge(make_file(version), NOW)
    assert verdict.is_offered is is_offered
    if not is_offered:
        what = f"numpy {version}" if version else "numpy.zip"
        rule = f"deny numpy{specifier}"
        assert verdict == withheld(rule, f"{what} is denied by 'numpy{specifier}' of {LABEL}")


ALLOWANCES = (
    ((), "2.4.2", False),
    ((releases("numpy"),), "2.4.2", True),
    ((releases("numpy"),), "2004d-odd", True),
    ((releases("num*", ">=2"),), "2.5rc1", True),
    ((releases("numpy", "<2"), releases("numpy", ">=3")), "2.4.2", False),
    ((releases("numpy", "!=1"),), "2004d-odd", False),
    ((releases("scipy"),), "2.4.2", False),
)


@pytest.mark.parametrize(("allow", "version", "is_offered"), ALLOWANCES)
def test_what_is_allowed(allow: tuple[Releases, ...], version: str, is_offered: bool) -> None:
    """Nothing but what is named; no exemption helps."""
    verdict = make_policy(allow=allow, exempt=(exempt(),)).judge(make_file(version), NOW)
    if is_offered:
        assert verdict.is_offered
    else:
        assert verdict == withheld(LABEL, f"numpy {version} is not among what {LABEL} allows")


def test_malware_is_withheld_whatever_else_is_said() -> None:
    """Exempt and allowed, and also where the flags alone decide."""
    package = b'{"ecosystem": "PyPI", "name": "numpy"}'
    content = b'{"id": "MAL-2026-7", "affected": [{"package": %s, "versions": ["2.4.2"]}]}' % package
    advisories = Advisories(parse_record(content))
    expected = withheld("osv MAL-2026-7", "numpy 2.4.2 is named as malware by MAL-2026-7")
    policy = make_policy(cooldown=60, exempt=(exempt(),), allow=(releases("*"),), advisories=advisories)
    for one in (policy, Policy(mode=Mode.CACHE, advisories=advisories)):
        assert one.judge(make_file(), NOW) == expected
        assert one.judge(make_file("2.4.3"), NOW).is_offered
        assert one.judge(make_file(name="scipy"), NOW).is_offered


def test_denials_come_before_allowances_before_age() -> None:
    """What stays for good is told before what will pass."""
    policy = make_policy(
        cooldown=30 * 86400, deny=(releases("numpy", "==1"),), allow=(releases("numpy", "<3"),), freeze=NOW - 20 * DAY
    )
    assert policy.judge(make_file("1"), NOW).rule == "deny numpy==1"
    assert "allows" in policy.judge(make_file("3"), NOW).reason
    assert "freeze" in policy.judge(make_file("2"), NOW).reason
    assert "younger" in policy.judge(make_file("2", NOW - 25 * DAY), NOW).reason


# Views.


def test_a_view_keeps_the_order_and_knows_when_it_ends() -> None:
    """The first change of any file counts, of those that are offered too."""
    files = [
        make_file("3", NOW - DAY),
        make_file("2", NOW - 2 * DAY),
        make_file("1", None),
        make_file("0.9", NOW - 9 * DAY),
        make_file("0.8", NOW),
    ]
    policy = make_policy(cooldown=3 * 86400, exempt=(Exemption(releases("numpy", "==0.8"), NOW + DAY / 2),))
    view = policy.view(NUMPY, files, NOW)
    assert view.offered == (files[3], files[4])
    assert view.withheld == tuple((file, policy.judge(file, NOW)) for file in files[:3])
    assert view.until == NOW + DAY / 2
    later = policy.view(NUMPY, files, NOW + DAY / 2)
    assert (later.offered, later.until) == ((files[3],), NOW + DAY)


def test_a_view_without_rules_never_ends() -> None:
    """Everything is offered, for ever."""
    files = (make_file("2"), make_file("1", None))
    assert Policy(mode=Mode.CACHE).view(NUMPY, iter(files), NOW) == View(files, (), None)


def test_every_reason_is_one_printable_line() -> None:
    """It becomes the reason phrase of an answer."""
    policy = make_policy(cooldown=60, deny=(releases("numpy", "==1"),), allow=(releases("numpy", "<3"),))
    for file in (make_file("1"), make_file("2", None), make_file("2", NOW), make_file("4"), make_file("2", FUTURE)):
        verdict = policy.judge(file, NOW)
        assert not verdict.is_offered
        assert verdict.reason.isprintable()
        assert verdict.reason.isascii()

"""`[[policy]]` tables become rules, or one line that names the entry and the key."""

import time
import tomllib
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest
from packaging.specifiers import SpecifierSet

from pypiserver_ng.config import build_config
from pypiserver_ng.config.values import parse_releases
from pypiserver_ng.errors import Invalid
from pypiserver_ng.model import Exemption, Mode, Releases, Rule

UPSTREAMS = [{"name": name, "url": f"https://{name}.example/simple/"} for name in ("public", "partner")]
CACHE = {"fallback-mode": "cache"}


def build(value: Any, settings: Mapping[str, Any] = CACHE) -> tuple[Rule, ...]:
    return build_config({}, {}, {"upstream": UPSTREAMS, "policy": value, **settings}, str).rules


def refuse(value: Any, settings: Mapping[str, Any] = CACHE) -> str:
    """The one line that a bad configuration file is answered with."""
    with pytest.raises(Invalid) as refused:
        build(value, settings)
    assert "\n" not in refused.value.message
    return refused.value.message


def releases(text: str, projects: str, specifier: str = "") -> Releases:
    return Releases(text, projects, SpecifierSet(specifier) if specifier else None)


def test_every_key_as_the_toml_parser_gives_it() -> None:
    """And what an entry leaves out is left to the flags."""
    text = """
        [[policy]]
        projects = ["Acme_*"]
        upstream = []

        [[policy]]
        projects = ["numpy", "scipy", "pandas", "dask", "xarray"]
        upstream = ["partner", "public", "partner"]
        mode = "cache"
        merge = true
        cooldown = "4d"
        max-age = 30
        freeze = 2026-11-01
        exempt = ["numpy==2.4.1", { release = "Sci_Py < 1.19", until = 2026-12-01T12:00:00+02:00, reason = "a fix" }]
        allow = ["numpy", "scipy>=1,<2"]
        deny = ["dask!=1.0", "pan*"]
    """
    first, second = build(tomllib.loads(text)["policy"])
    assert first == Rule("[[policy]] number 1 (acme-*)", ("acme-*",), upstreams=())
    assert second == Rule(
        label="[[policy]] number 2 (numpy, scipy, pandas and 2 more)",
        projects=("numpy", "scipy", "pandas", "dask", "xarray"),
        upstreams=("partner", "public"),
        mode=Mode.CACHE,
        merge=True,
        cooldown=345600,
        freeze=datetime(2026, 11, 1, tzinfo=UTC),
        max_age=30,
        exempt=(
            Exemption(releases("numpy==2.4.1", "numpy", "==2.4.1")),
            Exemption(releases("Sci_Py < 1.19", "sci-py", "<1.19"), datetime(2026, 12, 1, 10, tzinfo=UTC), "a fix"),
        ),
        allow=(releases("numpy", "numpy"), releases("scipy>=1,<2", "scipy", ">=1,<2")),
        deny=(releases("dask!=1.0", "dask", "!=1.0"), releases("pan*", "pan*")),
    )


def test_empty_is_not_absent() -> None:
    """Nothing is allowed, and no cooldown holds, where somebody wrote so."""
    (rule,) = build([{"projects": ["*"], "allow": [], "cooldown": "0", "merge": False, "upstream": "public"}])
    assert (rule.allow, rule.cooldown, rule.merge, rule.upstreams) == ((), 0, False, ("public",))


RELEASES = (
    ("numpy", "numpy", ""),
    ("Num_Py==2.4.*", "num-py", "==2.4.*"),
    ("leftpad<2", "leftpad", "<2"),
    (" leftpad ~= 2.1 ", "leftpad", "~=2.1"),
    ("a.b!=1,>0.5", "a-b", "!=1,>0.5"),
    ("acme-*>=2", "acme-*", ">=2"),
    ("acme-[!ab]!=2", "acme-[!ab]", "!=2"),
    ("x===1.0", "x", "===1.0"),
)


@pytest.mark.parametrize(("text", "projects", "specifier"), RELEASES)
def test_releases(text: str, projects: str, specifier: str) -> None:
    """A name or a pattern, then a specifier or nothing."""
    assert parse_releases(text) == releases(text.strip(), projects, specifier)


@pytest.mark.parametrize(
    "text",
    ("", "numpy 2", "numpy=2", "==2", "numpy==", "numpy<2;x", "numpy @ https://x.example/", "a\n"),
)
def test_no_releases(text: str) -> None:
    """What could be read in two ways is read in none."""
    with pytest.raises(Invalid):
        parse_releases(text)


@pytest.fixture
def elsewhere() -> Iterator[None]:
    """A machine whose clock shows another time than UTC."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "XYZ-9")
        time.tzset()
        yield
    time.tzset()


MOMENTS = (
    (date(2026, 12, 1), datetime(2026, 12, 1, tzinfo=UTC)),
    ("2026-12-01", datetime(2026, 12, 1, tzinfo=UTC)),
    (datetime(2026, 12, 1, 9), datetime(2026, 12, 1, 9, tzinfo=UTC)),  # noqa: DTZ001 - as a file without a zone gives it
    ("2026-12-01T09:30Z", datetime(2026, 12, 1, 9, 30, tzinfo=UTC)),
    (datetime(2026, 12, 1, 9, tzinfo=timezone(timedelta(hours=2))), datetime(2026, 12, 1, 7, tzinfo=UTC)),
)


@pytest.mark.parametrize(("value", "moment"), MOMENTS)
def test_a_moment(value: Any, moment: datetime, elsewhere: None) -> None:
    """UTC where nothing else is said, wherever the machine stands; a date is its beginning."""
    (rule,) = build([{"projects": ["*"], "freeze": value}])
    assert rule.freeze == moment
    assert rule.freeze is not None
    assert rule.freeze.tzinfo is UTC


LISTED = '\'deny\' must be a list of releases such as ["badpkg", "leftpad<2"]'
RELEASE = "must be releases such as 'numpy==2.4.1', 'leftpad<2' or 'acme-*', not 'a b'"
BAD: tuple[tuple[dict[str, Any], str], ...] = (
    ({"project": ["x"]}, "unknown key 'project': did you mean 'projects'?"),
    ({"max_age": 1}, "unknown key 'max_age': did you mean 'max-age'?"),
    ({"projects": "x"}, "'projects' must be a list of project names or patterns such as [\"acme-*\"]"),
    ({"projects": []}, "'projects' must be a list of project names or patterns such as [\"acme-*\"]"),
    ({"upstream": "publik"}, "'upstream' names an unknown upstream 'publik': did you mean 'public'?"),
    ({"upstream": ["public", "zzz"]}, "'upstream' names an unknown upstream 'zzz'"),
    ({"upstream": [1]}, "'upstream' must be a text of one line, not 1"),
    ({"mode": "proxy"}, "'mode' must be 'redirect' or 'cache', not 'proxy'"),
    ({"mode": ["cache"]}, "'mode' must be 'redirect' or 'cache', not ['cache']"),
    ({"merge": "yes"}, "'merge' must be true or false, not 'yes'"),
    ({"cooldown": True}, "'cooldown' must be a duration such as '4d', not True"),
    ({"cooldown": "soon"}, "'cooldown' must be a duration such as 90s, 12h or 4d, not 'soon'"),
    ({"max-age": -1}, "'max-age' must be a duration such as 90s, 12h or 4d, not '-1'"),
    ({"freeze": "yesterday"}, "'freeze' must be a date such as 2026-12-01, not 'yesterday'"),
    ({"freeze": 2026}, "'freeze' must be a date such as 2026-12-01, not 2026"),
    (
        {"freeze": "0001-01-01T00:00+01:00"},
        "'freeze' must be a date that UTC can express, not 0001-01-01 00:00:00+01:00",
    ),
    ({"deny": "badpkg"}, LISTED),
    ({"deny": ["a b"]}, f"'deny' {RELEASE}"),
    ({"allow": [1]}, "'allow' must be a text of one line, not 1"),
    ({"allow": ["a=1"]}, "'allow' holds no version specifier such as '==2.4.1' or '>=1,<2': 'a=1'"),
    ({"exempt": "numpy"}, "'exempt' must be a list of releases such as [\"numpy==2.4.1\"]"),
    ({"exempt": [1]}, "'exempt': 'release' must be a text of one line, not 1"),
    ({"exempt": ["a b"]}, f"'exempt': 'release' {RELEASE}"),
    ({"exempt": [{"until": "2026-12-01"}]}, "'exempt': 'release' is missing"),
    ({"exempt": [{"release": "a", "untl": 1}]}, "'exempt': unknown key 'untl': did you mean 'until'?"),
    ({"exempt": [{"release": "a", "until": 1}]}, "'exempt': 'until' must be a date such as 2026-12-01, not 1"),
    ({"exempt": [{"release": "a", "reason": "x\ny"}]}, r"'exempt': 'reason' must be a text of one line, not 'x\ny'"),
)


@pytest.mark.parametrize(("entry", "expected"), BAD)
def test_a_bad_entry_is_named_by_its_number(entry: dict[str, Any], expected: str) -> None:
    """Entries are counted from one."""
    message = refuse([{"projects": ["x"]}, {"projects": ["y"]} | entry])
    assert message == f"[[policy]] number 2 in the configuration file: {expected}"


def test_projects_are_required() -> None:
    """An entry for nobody is a slip."""
    assert refuse([{"deny": ["x"]}]).endswith("'projects' is missing")


@pytest.mark.parametrize("value", ("x", {"projects": ["*"]}))
def test_policy_is_an_array_of_tables(value: Any) -> None:
    """`[policy]` with single brackets is the usual mistake."""
    assert refuse(value) == "'policy' in the configuration file must be tables that begin with [[policy]]"


def test_an_upstream_may_be_called_as_its_flag_names_it() -> None:
    """One alone is `upstream`, also where pip on this machine says which."""
    entry = {"projects": ["*"], "upstream": "upstream"}
    assert build_config({}, {}, {"policy": [entry]}, str).rules[0].upstreams == ("upstream",)
    flags = {"fallback-url": ("https://a.example", "https://b.example")}
    with pytest.raises(Invalid, match=r"unknown upstream 'upstream': did you mean 'upstream-[12]'"):
        build_config(flags, {}, {"policy": [entry]}, str)


NEEDING: tuple[tuple[str, Any], ...] = (
    ("cooldown", "4d"),
    ("merge", True),
    ("freeze", "2026-12-01"),
    ("allow", []),
    ("deny", ["x"]),
    ("exempt", ["x"]),
    ("max-age", "0"),
)


@pytest.mark.parametrize(("key", "value"), NEEDING)
def test_what_needs_cache_mode_is_refused_without_it(key: str, value: Any) -> None:
    """Wherever the entry has its mode from, and with what has to change."""
    begin = f"[[policy]] number 1 (*): {key!r} has no effect on clients that are redirected: "
    entry = {"projects": ["*"], key: value}
    assert refuse([entry], {}) == begin + "add --fallback-mode cache"
    assert refuse([entry | {"mode": "redirect"}]) == begin + "remove its 'mode'"
    assert refuse([entry | {"mode": "redirect"}], {}) == begin + "remove its 'mode' and add --fallback-mode cache"
    assert build([entry | {"mode": "cache"}], {})
    assert build([entry])


def test_an_entry_may_redirect() -> None:
    """Where it protects from nothing, and inherits nothing that would."""
    off = {"projects": ["*"], "mode": "redirect", "upstream": ["partner"], "merge": False, "cooldown": "0", "deny": []}
    assert build([off], {"cooldown": "4d", **CACHE})
    begin = "[[policy]] number 1 (*): --"
    end = "has no effect on clients that are redirected: remove its 'mode'"
    bare = {"projects": ["*"], "mode": "redirect"}
    assert refuse([bare], {"cooldown": "4d", **CACHE}) == f'{begin}cooldown {end}, or add cooldown = "0"'
    assert refuse([off], {"osv": "records", **CACHE}) == f"{begin}osv {end}"
    assert build([bare | {"upstream": []}], {"cooldown": "4d", "osv": "records", **CACHE}), "nobody is redirected"


def test_an_entry_cannot_cache_without_a_fallback() -> None:
    """One contradicts the other."""
    toml = {"policy": [{"projects": ["*"], "mode": "cache"}], "disable-fallback": True}
    with pytest.raises(Invalid, match="--disable-fallback leaves nothing to cache"):
        build_config({}, {}, toml, str)

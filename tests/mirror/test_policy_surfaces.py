"""What a policy says holds on every surface alike: pages, files, HEAD, metadata, JSON API and the explanation."""

import json
import re
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.mirror.asking import HTML, ask, listed, page_of, url_of
from tests.mirror.conftest import Mirror
from tests.mirror.visible import assert_offered, assert_withheld, explain
from tests.tools.distributions import build_sdist, build_wheel
from tests.tools.mirrored import Mirrored
from tests.tools.program import Program
from tests.tools.server import wait_until

FIRST, SECOND, THIRD = (build_wheel("demo", version) for version in ("1.0", "2.0", "3.0"))
SDIST = build_sdist("demo", "2.0")
OTHER = build_wheel("other", "1.0")
ALL = [FIRST, SECOND, THIRD, SDIST]
EVERYTHING = '[[policy]]\nprojects = ["*"]\n'


def ago(**span: float) -> str:
    """A moment before now, as indexes write it."""
    return (datetime.now(UTC) - timedelta(**span)).isoformat(timespec="seconds").replace("+00:00", "Z")


@pytest.fixture(autouse=True)
def stock(mirrored: Mirrored) -> None:
    """Old, younger, and very young; `other` is as old as the first."""
    mirrored.add("demo", FIRST, upload_time="2024-01-01T00:00:00Z")
    mirrored.add("demo", SECOND, SDIST, upload_time=ago(days=30))
    mirrored.add("demo", THIRD, upload_time=ago(hours=1))
    mirrored.add("other", OTHER, upload_time=ago(hours=1))


def test_without_a_policy_everything_is_offered(mirror: Mirror, mirrored: Mirrored) -> None:
    server = mirror()
    for one in ALL:
        assert_offered(server, one)


# Cooldown, freeze and exemptions


def test_cooldown(mirror: Mirror, mirrored: Mirrored) -> None:
    """Judged per file by upstream's own time, which is said together with its end."""
    server = mirror("--cooldown", "4d")
    for one in (FIRST, SECOND, SDIST):
        assert_offered(server, one)
    entry = assert_withheld(server, THIRD, r"3\.0")
    ends = datetime.fromisoformat(entry["until"])
    assert timedelta(days=3, hours=22) < ends - datetime.now(UTC) <= timedelta(days=4)
    assert str(ends.year) in ask(server, url_of(THIRD)).reason


@pytest.mark.parametrize("rule", ('cooldown = "1s"', "freeze = 2025-01-01"))
def test_files_of_unknown_age_are_withheld(mirror: Mirror, mirrored: Mirrored, rule: str) -> None:
    """No time, an unreadable one and one that is yet to come: nobody can say that the file is old enough."""
    server = mirror(config=f"{EVERYTHING}{rule}\n")
    for number, time in enumerate((None, "yesterday", "2999-01-01T00:00:00Z")):
        name = f"age-{number}"
        known, unknown = build_wheel(name, "1.0"), build_wheel(name, "2.0")
        mirrored.add(name, known)
        mirrored.add(name, unknown, upload_time=time)
        assert_offered(server, known, name)
        assert_withheld(server, unknown, r"2\.0", name)


def test_html_upstreams_have_no_times(mirror: Mirror, mirrored: Mirrored) -> None:
    mirrored.look.as_json = False
    server = mirror("--cooldown", "4d")
    for one in ALL:
        assert_withheld(server, one, "time")


def test_a_cooldown_ends(mirror: Mirror, mirrored: Mirrored) -> None:
    """By the clock alone: upstream is not asked again for that, and nobody has to be told."""
    mirrored.add("demo", THIRD, upload_time=ago(seconds=0))
    server = mirror("--cooldown", "15s")
    assert_withheld(server, THIRD, r"3\.0")
    wait_until(lambda: THIRD.filename in page_of(server).text, within=40)
    assert_offered(server, THIRD)
    assert mirrored.count_pages() == 1


def test_a_file_that_is_here_already(mirror: Mirror, mirrored: Mirrored) -> None:
    """Its bytes were fetched before the rule was made: they stay, and are not given out."""
    first = mirror()
    for one in ALL:
        assert_offered(first, one)
    first.stop()
    assert_withheld(mirror("--cooldown", "4d"), THIRD, r"3\.0")


#: Exemptions, and whether they let version 3.0 of a project through.
#: NAME is its normalized name, WRITTEN another spelling of it.
EXEMPTIONS = {
    '"NAME==3.0"': True,
    '"NAME>=3"': True,
    '"NAME"': True,
    '"WRITTEN==3.0"': True,
    '"NAME==2.0"': False,
    '"other==3.0"': False,
    '{ release = "NAME==3.0", until = 2999-01-01, reason = "security" }': True,
    '{ release = "NAME==3.0", until = 2024-01-01, reason = "security" }': False,
}


@pytest.mark.parametrize("rule", ('cooldown = "4d"', "freeze = 2025-01-01"))
def test_exemptions(mirror: Mirror, mirrored: Mirrored, rule: str) -> None:
    """Until their date, for cooldown and freeze alike."""
    names = {f"young-{number}": exemption for number, exemption in enumerate(EXEMPTIONS)}
    config = ""
    for name, exemption in names.items():
        text = exemption.replace("NAME", name).replace("WRITTEN", name.upper().replace("-", "_"))
        config += f'[[policy]]\nprojects = ["{name}"]\n{rule}\nexempt = [{text}]\n'
    server = mirror(config=config)
    for name, exemption in names.items():
        young = build_wheel(name, "3.0")
        mirrored.add(name, young, upload_time=ago(hours=1))
        if EXEMPTIONS[exemption]:
            assert_offered(server, young, name)
            assert "exempt" in explain(server, young, name)["rule"]
        else:
            assert_withheld(server, young, r"3\.0", name)


def test_freeze(mirror: Mirror, mirrored: Mirrored) -> None:
    """Nothing that came later, for ever."""
    server = mirror(config=f"{EVERYTHING}freeze = 2025-01-01\n")
    assert_offered(server, FIRST)
    for one in (SECOND, SDIST, THIRD):
        assert assert_withheld(server, one, "2025|fr[eo]ez|froz")["until"] is None


def test_the_first_entry_that_matches_decides(mirror: Mirror, mirrored: Mirrored) -> None:
    """And takes from the flags what it does not say."""
    config = (
        '[[policy]]\nprojects = ["demo"]\ncooldown = "0"\n'
        '[[policy]]\nprojects = ["o*"]\nmax-age = "1h"\n'
        '[[policy]]\nprojects = ["*"]\ndeny = ["other"]\n'
    )
    server = mirror("--cooldown", "4d", config=config)
    for one in ALL:
        assert_offered(server, one)
    assert_withheld(server, OTHER, "other", "other")


# Deny, allow and advisories


def test_denied_releases(mirror: Mirror, mirrored: Mirrored) -> None:
    """No exemption helps."""
    server = mirror(config=f'{EVERYTHING}deny = ["demo<2", "absent"]\nexempt = ["demo"]\ncooldown = "4d"\n')
    assert_withheld(server, FIRST, "den(y|ied)")
    for one in (SECOND, SDIST, THIRD):
        assert_offered(server, one)


def test_a_denied_project(mirror: Mirror, mirrored: Mirrored) -> None:
    """An empty page, so that installers say what they say of a project without files; upstream does not hear of it."""
    server = mirror(config=f'{EVERYTHING}deny = ["demo", "bad-*"]\n')
    for project in ("demo", "bad-name"):
        assert listed(server, project) == {}
        assert ask(server, f"/pypi/{project}/json").status in {200, 404}
        why = ask(server, f"/-/why/{project}", accept="application/json").json
        assert "den" in f"{why['decision']}"
    for path in (url_of(FIRST), f"{url_of(FIRST)}.metadata"):
        for method in ("GET", "HEAD"):
            refused = ask(server, path, method=method)
            assert (refused.status, "den" in refused.reason) == (403, True), refused
    assert mirrored.requests == []


def test_allowed_releases(mirror: Mirror, mirrored: Mirrored) -> None:
    """Nothing else is offered, and projects of which nothing is allowed are nobody's."""
    server = mirror(config=f'{EVERYTHING}allow = ["demo>=2,<3"]\n')
    for one in (SECOND, SDIST):
        assert_offered(server, one)
    for one in (FIRST, THIRD):
        assert_withheld(server, one, "allow")
    asked = len(mirrored.requests)
    assert page_of(server, "other").status in {200, 404}
    assert OTHER.filename not in page_of(server, "other").text
    assert ask(server, url_of(OTHER)).status in {403, 404}
    assert len(mirrored.requests) == asked


def osv(name: str, identifier: str, **affected: object) -> bytes:
    entry = {"package": {"ecosystem": "PyPI", "name": name}, **affected}
    return json.dumps({"id": identifier, "modified": "2026-01-01T00:00:00Z", "affected": [entry]}).encode()


MALWARE = {
    "MAL-2026-1.json": osv("Demo", "MAL-2026-1", versions=["1.0"]),
    "deep/MAL-2026-2.json": osv(
        "demo", "MAL-2026-2", ranges=[{"type": "ECOSYSTEM", "events": [{"introduced": "3.0"}]}]
    ),
    "GHSA-x.json": osv("demo", "GHSA-x", versions=["2.0"]),
    "MAL-2026-3.json": osv("other", "MAL-2026-3"),
    "broken.json": b"{",
}


@pytest.mark.parametrize("packing", ("directory", "zip"))
def test_malware_records(mirror: Mirror, mirrored: Mirrored, tmp_path: Path, packing: str) -> None:
    """MAL- records block releases or projects; vulnerabilities block nothing; a broken record stops nobody."""
    records = tmp_path / ("osv.zip" if packing == "zip" else "osv")
    if packing == "zip":
        with zipfile.ZipFile(records, "w") as archive:
            for name, content in MALWARE.items():
                archive.writestr(name, content)
    else:
        for name, content in MALWARE.items():
            path = records / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    server = mirror("--osv", str(records), config=f'{EVERYTHING}exempt = ["demo"]\ncooldown = "1s"\n')
    for one in (SECOND, SDIST):
        assert_offered(server, one)
    assert_withheld(server, FIRST, "MAL-2026-1")
    assert_withheld(server, THIRD, "MAL-2026-2")
    assert listed(server, "other") == {}
    assert "MAL-2026-3" in ask(server, url_of(OTHER)).reason
    assert mirrored.count_pages("other") == 0


def test_a_record_that_comes_later(mirror: Mirror, mirrored: Mirrored, tmp_path: Path) -> None:
    """It is noticed without a restart, and holds for files that are here."""
    records = tmp_path / "osv"
    records.mkdir()
    (records / "other.json").write_bytes(MALWARE["MAL-2026-3.json"])
    server = mirror("--osv", str(records))
    assert_offered(server, FIRST)
    (records / "one.json").write_bytes(MALWARE["MAL-2026-1.json"])
    wait_until(lambda: ask(server, url_of(FIRST)).status == 403, within=60)
    assert_withheld(server, FIRST, "MAL-2026-1")
    assert_offered(server, SECOND)


# The explanation, and rules that protect nobody


def test_the_explanation_for_people(mirror: Mirror, mirrored: Mirrored) -> None:
    """A page for browsers; names in it are text."""
    server = mirror("--cooldown", "4d")
    answer = ask(server, "/-/why/demo", accept=HTML)
    assert answer.headers["content-type"].startswith("text/html")
    assert THIRD.filename in answer.text
    assert ask(server, "/-/why/Demo/3.0", accept="application/json").status in {200, 301, 302, 307, 308}
    assert "<script>" not in ask(server, "/-/why/%3Cscript%3E", accept=HTML).text


def test_the_explanation_by_command(mirror: Mirror, mirrored: Mirrored, program: Program, tmp_path: Path) -> None:
    """Beside the server, from the same configuration."""
    config = f'fallback-mode = "cache"\nfallback-url = "{mirrored.url}"\ncooldown = "4d"\n'
    server = mirror(config=config)
    assert page_of(server).status == 200
    done = program.run("why", "--config", tmp_path / "config.toml", "demo==3.0")
    assert done.returncode == 0, done
    assert re.search(r"demo\b.*\b3\.0", done.stdout, re.DOTALL)


@pytest.mark.parametrize(
    ("flags", "config"),
    (
        (("--cooldown", "4d"), ""),
        ((), f'{EVERYTHING}cooldown = "4d"\n'),
        ((), f"{EVERYTHING}freeze = 2025-01-01\n"),
        ((), f'{EVERYTHING}deny = ["demo"]\n'),
        (("--merge", "demo"), ""),
        (("--offline",), ""),
        (("--fallback-mode", "cache", "--cooldown", "4d"), f'{EVERYTHING}mode = "redirect"\n'),
    ),
)
def test_rules_that_would_protect_nobody(program: Program, tmp_path: Path, flags: tuple[str, ...], config: str) -> None:
    """A redirected client gets everything from elsewhere: such a configuration does not start."""
    (tmp_path / "config.toml").write_text(config)
    for command in ("run", "check-config"):
        line = program.refuse(command, "--config", tmp_path / "config.toml", *flags)
        assert "--fallback-mode cache" in line or "mode" in line


def test_a_reason_is_one_line(mirror: Mirror, mirrored: Mirrored, tmp_path: Path) -> None:
    """Whatever a record says: no second header can be made of it."""
    (tmp_path / "osv").mkdir()
    (tmp_path / "osv" / "other.json").write_bytes(MALWARE["MAL-2026-3.json"])
    (tmp_path / "osv" / "x.json").write_bytes(osv("demo", "MAL-1\r\nSet-Cookie: b=c\r\n\r\n", versions=["2.0"]))
    server = mirror("--osv", str(tmp_path / "osv"))
    for path in (url_of(SECOND), "/-/why/demo", "/simple/demo/"):
        answer = ask(server, path)
        assert answer.is_whole
        assert "set-cookie" not in answer.headers

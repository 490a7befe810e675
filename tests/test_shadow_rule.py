"""The shadow rule, end to end: one local file of a project answers for the whole project.

Nothing of a project that is here is ever asked from another index, whatever the version, the kind of file,
the directory or the spelling of the name. Yanked files join this module with the command that yanks.
"""

import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import httpx2
import pytest

from tests.tools.clients import Client, installed_version
from tests.tools.distributions import build_sdist, build_wheel, make_sdist, make_wheel
from tests.tools.environment import clean_environment
from tests.tools.fake_upstream import FakeUpstream, running_upstream
from tests.tools.server import OPEN, Serve, Server, running_server, wait_until
from tests.tools.uploads import remove, upload

JSON = "application/vnd.pypi.simple.v1+json"
HTML = "text/html"


@dataclass(frozen=True, slots=True)
class Installer:
    """A real client; `merge` are its words for "the best version of all indexes"."""

    tool: Client
    words: tuple[str, ...]
    merge: tuple[str, ...]

    def run(self, index: str, target: Path, *more: str, ok: bool = True) -> str:
        return self.tool.run(*self.words, index, "--target", target, *more, ok=ok)


def ask(server: Server, path: str, *, accept: str = HTML, method: str = "GET") -> httpx2.Response:
    """One request; a redirect is an answer."""
    headers = {"Accept": accept}
    # Everything is plain HTTP on loopback: without `verify` no certificates are loaded for each request.
    return httpx2.request(method, server.url + path, headers=headers, trust_env=False, verify=False, timeout=60)


def listed(server: Server, project: str) -> list[str]:
    """The filenames on a local project's page, the same in both formats."""
    page = ask(server, f"/simple/{project}/", accept=JSON)
    assert page.status_code == 200, page.text
    names: list[str] = [file["filename"] for file in page.json()["files"]]
    html = ask(server, f"/simple/{project}/")
    assert html.status_code == 200
    assert all(f">{name}<" in html.text for name in names)
    return names


def goes_upstream(server: Server, upstream: FakeUpstream, project: str) -> bool:
    """Whether the project's page redirects to the other index; both formats and HEAD must agree."""
    answers = [
        ask(server, f"/simple/{project}/", accept=accept, method=method)
        for accept in (HTML, JSON)
        for method in ("GET", "HEAD")
    ]
    seen = {(answer.status_code in {302, 307}, answer.headers.get("location")) for answer in answers}
    assert len(seen) == 1, seen
    redirected, location = seen.pop()
    if redirected:
        assert location == f"{upstream.url}{project}/"
    return redirected


@pytest.fixture
def falling_back(serve: Serve, upstream: FakeUpstream) -> Callable[..., Server]:
    """Starts an open server that falls back to the fake upstream, which has lxml 3.6.3 and 3.6.4."""
    upstream.add("lxml", *(build_wheel("lxml", version, description="public") for version in ("3.6.3", "3.6.4")))

    def start(*args: str) -> Server:
        return serve(*args, "--fallback-url", upstream.url, *OPEN)

    return start


@pytest.fixture(params=["pip", "uv"])
def installer(request: pytest.FixtureRequest, tmp_path: Path, environment: dict[str, str]) -> Installer:
    """The installers that the tests' own environment has."""
    if request.param == "pip":
        pip = Client((sys.executable, "-m", "pip"), tmp_path, environment)
        return Installer(pip, ("install", "--index-url"), ())
    uv = Client((str(Path(sys.executable).with_name("uv")),), tmp_path, environment)
    return Installer(uv, ("pip", "install", "--default-index"), ("--index-strategy", "unsafe-best-match"))


# The documented case.


def test_a_pin_of_an_upstream_version_fails(
    falling_back: Callable[..., Server],
    upstream: FakeUpstream,
    installer: Installer,
    packages: Path,
    tmp_path: Path,
) -> None:
    """With 3.6.3 here, `lxml==3.6.4` fails although the public index has it, and nobody asked there."""
    make_wheel(packages, "lxml", "3.6.3")
    server = falling_back()
    said = installer.run(server.simple, tmp_path / "site", "lxml==3.6.4", ok=False)
    assert "lxml==3.6.4" in said
    assert not (tmp_path / "site" / "lxml").exists()
    assert upstream.requests == []


def test_without_a_pin_the_local_version_is_installed(
    falling_back: Callable[..., Server],
    upstream: FakeUpstream,
    installer: Installer,
    packages: Path,
    tmp_path: Path,
) -> None:
    """The older local version wins over every newer public one."""
    make_wheel(packages, "lxml", "3.6.3")
    server = falling_back()
    installer.run(server.simple, tmp_path / "site", "lxml")
    assert installed_version(tmp_path / "site", "lxml") == "3.6.3"
    assert upstream.requests == []


def test_first_way_out_the_version_is_uploaded(
    falling_back: Callable[..., Server],
    upstream: FakeUpstream,
    installer: Installer,
    packages: Path,
    tmp_path: Path,
) -> None:
    """After the wanted version is uploaded, the very next install takes it from here."""
    make_wheel(packages, "lxml", "3.6.3")
    server = falling_back()
    assert upload(server.url, build_wheel("lxml", "3.6.4"), name="lxml", version="3.6.4").status_code == 200
    installer.run(server.simple, tmp_path / "site", "lxml==3.6.4")
    assert installed_version(tmp_path / "site", "lxml") == "3.6.4"
    assert upstream.requests == []


@pytest.mark.parametrize("requirement", ("lxml", "lxml==3.6.4"))
def test_second_way_out_an_extra_index_on_the_client(
    falling_back: Callable[..., Server],
    upstream: FakeUpstream,
    installer: Installer,
    packages: Path,
    tmp_path: Path,
    requirement: str,
) -> None:
    """A client that names both indexes and lets the best version win finds the public one itself."""
    make_wheel(packages, "lxml", "3.6.3")
    server = falling_back()
    both = ("--extra-index-url", upstream.url, *installer.merge)
    installer.run(server.simple, tmp_path / "site", *both, requirement)
    assert installed_version(tmp_path / "site", "lxml") == "3.6.4"


# Every kind of local file makes its project local.


#: Project to its only file, whose bytes cannot be opened.
LOCAL = {
    "a-wheel": "a_wheel-1.0-py3-none-any.whl",
    "a-build": "a_build-1.0-7-cp311-cp311-manylinux_2_28_x86_64.whl",
    "an-sdist": "an_sdist-1.0.tar.gz",
    "an-old-sdist": "an-old-sdist-1.0.zip",
    "a-tarball": "a-tarball-1.0.tar.bz2",
    "an-egg": "an_egg-1.0-py2.7.egg",
    "an-installer": "an-installer-1.0.win32-py2.7.exe",
    "versionless": "versionless.zip",
    "a-signature": "a_signature-1.0.tar.gz.asc",
    "capitals": "CAPITALS-1.0.tar.gz",
    "odd-sdist-name": "Odd.Sdist_Name-1.0.tar.gz",
    "odd-wheel-name": "Odd_Wheel.Name-1.0-py3-none-any.whl",
    "below": "team/a/below-1.0.tar.gz",
}
#: Project to a file that makes it no local project.
NOT_LOCAL = {
    "notes": "notes-1.0.txt",
    "bare": "bare",
    "dotted": ".dotted-1.0.tar.gz",
    "hidden": ".hidden/hidden-1.0.tar.gz",
    "folder": "folder/README.md",
    "partial": "partial-1.0.tar.gz.part",
    "prefix": "prefix-extras-1.0.tar.gz",
    "linked": "linked/linked-1.0.tar.gz",
}


@dataclass(frozen=True, slots=True)
class House:
    """One server for the tables that only read, with its fake upstream."""

    server: Server
    upstream: FakeUpstream


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    top = tmp_path_factory.mktemp("house")
    packages, elsewhere = top / "packages", top / "elsewhere"
    for path in (*LOCAL.values(), *NOT_LOCAL.values()):
        file = (elsewhere if path.startswith("linked/") else packages) / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"not an archive")
    (packages / "linked").symlink_to(elsewhere / "linked")
    environment = clean_environment(top / "home")
    with running_upstream() as upstream:
        args = ("--fallback-url", upstream.url, *OPEN)
        with running_server(*args, packages=packages, cwd=top, env=environment) as server:
            yield House(server, upstream)


@pytest.mark.parametrize("project", LOCAL)
def test_one_file_of_any_kind_shadows(house: House, project: str) -> None:
    """Whatever the name tells, even where the bytes cannot be opened, the project is local."""
    assert listed(house.server, project) == [Path(LOCAL[project]).name]
    assert house.upstream.requests == []


@pytest.mark.parametrize("project", NOT_LOCAL)
def test_other_files_do_not_shadow(house: House, project: str) -> None:
    """What is no distribution of the project, or lies under a dot name or a linked directory, changes nothing."""
    assert goes_upstream(house.server, house.upstream, project)


def test_an_installable_sdist_alone_shadows(
    falling_back: Callable[..., Server],
    upstream: FakeUpstream,
    installer: Installer,
    packages: Path,
    tmp_path: Path,
) -> None:
    """The local sdist is built although the public index has wheels."""
    make_sdist(packages, "lxml", "3.6.3")
    server = falling_back()
    installer.run(server.simple, tmp_path / "site", "lxml")
    assert installed_version(tmp_path / "site", "lxml") == "3.6.3"
    assert upstream.requests == []


def test_a_file_in_the_second_directory_shadows(
    falling_back: Callable[..., Server], upstream: FakeUpstream, tmp_path: Path
) -> None:
    """Every package directory counts, not only the first."""
    wheel = make_wheel(tmp_path / "second" / "deep", "lxml", "3.6.3")
    server = falling_back(str(tmp_path / "second"))
    assert listed(server, "lxml") == [wheel.name]
    assert upstream.requests == []


def test_a_link_to_a_file_shadows(
    falling_back: Callable[..., Server], upstream: FakeUpstream, packages: Path, tmp_path: Path
) -> None:
    """A symbolic link to a file is that file."""
    wheel = make_wheel(tmp_path / "elsewhere", "lxml", "3.6.3")
    (packages / wheel.name).symlink_to(wheel)
    assert listed(falling_back(), "lxml") == [wheel.name]


# Spellings.


@pytest.mark.parametrize("spelling", ("Odd.Sdist_Name", "ODD-SDIST-NAME", "odd__sdist..name", "odd-sdist_-_name"))
def test_spellings_lead_to_the_local_page(house: House, spelling: str) -> None:
    """Every spelling of a local name ends at the local page, by redirects that stay on this server."""
    server = house.server
    with httpx2.Client(trust_env=False, follow_redirects=True) as browser:
        for path, accept in product(("/simple/{}/", "/simple/{}", "/{}/", "/{}"), (HTML, JSON)):
            answer = browser.get(server.url + path.format(spelling), headers={"Accept": accept})
            assert answer.status_code == 200
            assert str(answer.url) == f"{server.simple}odd-sdist-name/"
            assert not [step for step in answer.history if urlsplit(step.headers["location"]).netloc]
    assert house.upstream.requests == []


@pytest.mark.parametrize("path", ("/simple/Public.Lib/", "/simple/public-lib", "/Public_Lib/", "/public-lib"))
def test_a_public_name_is_normalized_here_first(house: House, path: str) -> None:
    """The other index is only ever told the normalized name, and the query goes along all the way."""
    query = f"?format={JSON}"
    first = ask(house.server, path + query)
    assert first.status_code in {302, 307}
    assert urljoin(house.server.url + path, first.headers["location"]) == f"{house.server.simple}public-lib/{query}"
    then = ask(house.server, f"/simple/public-lib/{query}")
    assert then.headers["location"] == f"{house.upstream.url}public-lib/{query}"


# Files come and go.


def test_a_file_copied_in_shadows(
    falling_back: Callable[..., Server], upstream: FakeUpstream, packages: Path, tmp_path: Path
) -> None:
    """A file that someone copies into the directory is listed within two seconds, without a restart."""
    wheel = make_wheel(tmp_path / "elsewhere", "lxml", "3.6.3")
    server = falling_back()
    assert goes_upstream(server, upstream, "lxml")
    shutil.copy(wheel, packages)
    wait_until(lambda: ask(server, "/simple/lxml/").status_code == 200)
    assert listed(server, "lxml") == [wheel.name]


def test_a_file_copied_into_a_new_directory_shadows(
    falling_back: Callable[..., Server], upstream: FakeUpstream, packages: Path
) -> None:
    """A sub-directory that appears while the server runs is watched like the others."""
    server = falling_back()
    assert goes_upstream(server, upstream, "lxml")
    wheel = make_wheel(packages / "new" / "deep", "lxml", "3.6.3")
    wait_until(lambda: ask(server, "/simple/lxml/").status_code == 200)
    assert listed(server, "lxml") == [wheel.name]


def test_a_file_that_is_still_being_copied_shadows(
    falling_back: Callable[..., Server], upstream: FakeUpstream, packages: Path
) -> None:
    """From the moment its name was seen the project is local: not listed until it is whole, but never upstream."""
    wheel = build_wheel("lxml", "3.6.3", extra_files={"lxml/filler": bytes(range(256)) * 256})
    step = len(wheel.content) // 200 + 1
    server = falling_back()
    seen = []
    with (packages / wheel.filename).open("wb", buffering=0) as file:
        for start in range(0, len(wheel.content), step):
            seen.append(ask(server, "/simple/lxml/").status_code)
            file.write(wheel.content[start : start + step])
    wait_until(lambda: ask(server, "/simple/lxml/").status_code == 200)
    assert listed(server, "lxml") == [wheel.filename]
    noticed = next((place for place, status in enumerate(seen) if status != 302), len(seen))
    assert set(seen[noticed:]) <= {503}
    assert upstream.requests == []


def test_after_the_last_file_is_deleted_it_falls_back_again(
    falling_back: Callable[..., Server], upstream: FakeUpstream, packages: Path
) -> None:
    """One file fewer still shadows; none left falls back within two seconds."""
    first, last = (make_wheel(packages, "lxml", version) for version in ("3.6.2", "3.6.3"))
    server = falling_back()
    assert listed(server, "lxml") == [first.name, last.name]
    first.unlink()
    wait_until(lambda: first.name not in ask(server, "/simple/lxml/").text)
    assert listed(server, "lxml") == [last.name]
    last.unlink()
    wait_until(lambda: ask(server, "/simple/lxml/").status_code != 200)
    assert goes_upstream(server, upstream, "lxml")


def test_an_uploaded_file_shadows_at_once(falling_back: Callable[..., Server], upstream: FakeUpstream) -> None:
    """The very next request after the upload's answer is answered from here, in both formats."""
    server = falling_back()
    assert goes_upstream(server, upstream, "lxml")
    wheel = build_wheel("lxml", "3.6.3")
    assert upload(server.url, wheel, name="lxml", version="3.6.3").status_code == 200
    assert listed(server, "lxml") == [wheel.filename]
    assert upstream.requests == []


def test_a_refused_upload_does_not_shadow(falling_back: Callable[..., Server], upstream: FakeUpstream) -> None:
    """An upload that was refused leaves no project behind that hides the public one."""
    server = falling_back()
    answer = upload(server.url, build_wheel("lxml", "3.6.3"), name="lxml", version="4.0")
    assert answer.status_code == 400
    assert goes_upstream(server, upstream, "lxml")


def test_a_removed_release_falls_back_at_once(falling_back: Callable[..., Server], upstream: FakeUpstream) -> None:
    """After `remove_pkg` took the last release, the very next request goes to the other index."""
    server = falling_back()
    assert upload(server.url, build_sdist("lxml", "3.6.3"), name="lxml", version="3.6.3").status_code == 200
    assert not goes_upstream(server, upstream, "lxml")
    assert remove(server.url, name="lxml", version="3.6.3").status_code == 200
    assert goes_upstream(server, upstream, "lxml")


def test_a_restart_forgets_nothing(falling_back: Callable[..., Server], upstream: FakeUpstream, packages: Path) -> None:
    """The first request that a restarted server answers knows what is local, changes meanwhile included."""
    make_wheel(packages, "lxml", "3.6.3")
    assert falling_back().stop() == 0
    added = make_wheel(packages, "added", "1.0")
    server = falling_back()
    assert listed(server, "lxml") == ["lxml-3.6.3-py3-none-any.whl"]
    assert listed(server, "added") == [added.name]
    assert upstream.requests == []


# Names that never go upstream.


@pytest.mark.parametrize("accept", (HTML, JSON))
def test_a_reserved_name_never_goes_upstream(
    falling_back: Callable[..., Server], upstream: FakeUpstream, packages: Path, accept: str
) -> None:
    """`--reserve` answers 404 for matching projects without a file, however they are spelled."""
    wheel = make_wheel(packages, "acme-here", "1.0")
    server = falling_back("--reserve", "acme-*", "--reserve", "internal")
    for name in ("acme-core", "acme-", "internal"):
        assert ask(server, f"/simple/{name}/", accept=accept).status_code == 404
    with httpx2.Client(headers={"Accept": accept}, trust_env=False, follow_redirects=True) as browser:
        assert browser.get(f"{server.simple}Acme.Core/").status_code == 404
        assert browser.get(f"{server.url}/ACME_core").status_code == 404
    assert listed(server, "acme-here") == [wheel.name]
    assert goes_upstream(server, upstream, "acme")
    assert goes_upstream(server, upstream, "internal-tools")
    assert upstream.requests == []


def test_a_reserved_name_is_not_installed_from_upstream(
    falling_back: Callable[..., Server], upstream: FakeUpstream, installer: Installer, tmp_path: Path
) -> None:
    """A public project that took a reserved name reaches nobody."""
    upstream.add("acme-core", build_wheel("acme-core", "99.0"))
    server = falling_back("--reserve", "acme-*")
    installer.run(server.simple, tmp_path / "site", "acme-core", ok=False)
    assert upstream.requests == []


@pytest.mark.parametrize("accept", (HTML, JSON))
def test_without_fallback_an_unknown_project_is_not_found(
    falling_back: Callable[..., Server], upstream: FakeUpstream, packages: Path, accept: str
) -> None:
    """`--disable-fallback` wins over `--fallback-url`."""
    wheel = make_wheel(packages, "demo", "1.0")
    server = falling_back("--disable-fallback")
    answer = ask(server, "/simple/lxml/", accept=accept)
    assert answer.status_code == 404
    assert "location" not in answer.headers
    assert listed(server, "demo") == [wheel.name]
    assert upstream.requests == []


@pytest.mark.parametrize(
    "path",
    (
        "/packages/lxml-3.6.4-py3-none-any.whl",
        "/packages/lxml-3.6.4-py3-none-any.whl.metadata",
        "/pypi/lxml/json",
        "/pypi/lxml/3.6.4/json",
        "/lxml/json",
        "/project/lxml/",
    ),
)
def test_only_project_pages_fall_back(house: House, path: str) -> None:
    """Files, JSON documents and pages for people of an unknown project are 404, and nothing is asked."""
    assert ask(house.server, path).status_code == 404
    assert house.upstream.requests == []


def test_the_root_page_lists_local_projects_only(house: House) -> None:
    """What is local is listed, what the other index has is not, in either format."""
    page = ask(house.server, "/simple/", accept=JSON).json()
    expected = sorted([*LOCAL, "prefix-extras"])
    assert sorted(project["name"] for project in page["projects"]) == expected
    html = ask(house.server, "/simple/").text
    assert all(f">{name}<" in html for name in expected)
    assert "lxml" not in html
    assert house.upstream.requests == []


# Where the redirect leads.


@pytest.mark.parametrize(
    ("fallback", "expected"),
    (
        ("https://mirror.example/simple", "https://mirror.example/simple/public-lib/"),
        ("https://mirror.example/simple/", "https://mirror.example/simple/public-lib/"),
        ("https://mirror.example/simple///", "https://mirror.example/simple/public-lib/"),
        ("http://mirror.example:3141/root/pypi/+simple/", "http://mirror.example:3141/root/pypi/+simple/public-lib/"),
        ("https://mirror.example", "https://mirror.example/public-lib/"),
        ("https://user:s3cr3t@mirror.example/simple/", "https://mirror.example/simple/public-lib/"),
        ("https://t0k3n@mirror.example/simple/", "https://mirror.example/simple/public-lib/"),
    ),
)
def test_the_redirect_leads_to_the_project_upstream(serve: Serve, fallback: str, expected: str) -> None:
    """`<fallback-url>/<normalized name>/`, whatever slashes the URL ends with; its credentials stay here."""
    server = serve("-v", "-v", "--fallback-url", fallback, *OPEN)
    seen = ""
    for accept, method in product((HTML, JSON), ("GET", "HEAD")):
        answer = ask(server, "/simple/public-lib/", accept=accept, method=method)
        assert answer.status_code in {302, 307}
        assert answer.headers["location"] == expected
        seen += f"{answer.headers} {answer.text}"
    seen += "".join(ask(server, path).text for path in ("/", "/simple/", "/packages/absent", "/project/absent/"))
    assert server.stop() == 0
    for secret in ("s3cr3t", "t0k3n"):
        assert secret not in seen + server.log


def test_credentials_in_the_environment_stay_here_too(serve: Serve) -> None:
    """The same URL from the environment is treated alike."""
    server = serve("-v", *OPEN, env={"PYPISERVER_NG_FALLBACK_URL": "https://user:s3cr3t@mirror.example/simple/"})
    location = ask(server, "/simple/public-lib/").headers["location"]
    assert location == "https://mirror.example/simple/public-lib/"
    assert "s3cr3t" not in server.log


def test_the_first_of_several_upstreams_is_named(serve: Serve) -> None:
    """The order of `--fallback-url` is the priority."""
    urls = ("https://one.example/simple/", "https://two.example/simple/")
    server = serve("--fallback-url", urls[0], "--fallback-url", urls[1], *OPEN)
    assert ask(server, "/simple/public-lib/").headers["location"] == "https://one.example/simple/public-lib/"


def test_the_redirect_is_not_kept(house: House) -> None:
    """Nothing may remember the redirect: the project can become local with the next upload."""
    assert "no-" in ask(house.server, "/simple/lxml/").headers["cache-control"]


def test_listing_is_guarded_before_the_redirect(serve: Serve, upstream: FakeUpstream, passwords: Path) -> None:
    """With `-a list` a caller without credentials learns nothing, not even where a project would come from."""
    guarded = ("-P", str(passwords), "-a", "update,download,list")
    server = serve("--fallback-url", upstream.url, *guarded)
    answer = ask(server, "/simple/public-lib/")
    assert answer.status_code == 401
    assert "location" not in answer.headers

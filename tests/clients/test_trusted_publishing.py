"""Real uv and pdm publish without a password, as in a job of GitHub or GitLab."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.tools.certificates import make_certificate
from tests.tools.clients import Client
from tests.tools.distributions import make_wheel
from tests.tools.issuer import RUNNER_SECRET, FakeIssuer, gitlab_claims, running_issuer
from tests.tools.server import Serve, Server

pytestmark = pytest.mark.clients

PUBLISHER = """
[[publisher]]
issuer = "{url}"
claims = {{ repository = "acme/core" }}
projects = ["acme-*"]
"""


@pytest.fixture
def issuer() -> Iterator[FakeIssuer]:
    with running_issuer() as issuer:
        yield issuer


@pytest.fixture
def trusting(serve: Serve, issuer: FakeIssuer, tmp_path: Path) -> Callable[..., Server]:
    """Starts a server that believes the issuer; without a password nobody else may upload."""
    config = tmp_path / "config.toml"
    config.write_text(PUBLISHER.format(url=issuer.url))
    return lambda *args: serve("--disable-fallback", "--config", str(config), *args)


def as_on_github(issuer: FakeIssuer) -> dict[str, str]:
    """The variables of a job with the permission to ask for a token."""
    return {
        "GITHUB_ACTIONS": "true",
        "ACTIONS_ID_TOKEN_REQUEST_URL": issuer.token_url,
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": RUNNER_SECRET,
    }


def as_on_gitlab(issuer: FakeIssuer) -> dict[str, str]:
    """The variables of a job whose configuration asks for a token."""
    issuer.job = gitlab_claims()
    return {"GITLAB_CI": "true", "PYPISERVER_NG_ID_TOKEN": issuer.mint()}


PLATFORMS = pytest.mark.parametrize("platform", (as_on_github, as_on_gitlab))


@PLATFORMS
@pytest.mark.parametrize("prefix", ("/", "/pypi"))
def test_uv_publishes(
    client: Callable[[str], Client],
    trusting: Callable[..., Server],
    issuer: FakeIssuer,
    packages: Path,
    tmp_path: Path,
    platform: Callable[[FakeIssuer], dict[str, str]],
    prefix: str,
) -> None:
    """It asks by https alone, at the root of the host."""
    wheel = make_wheel(tmp_path / "dist", "acme-core", "1.0")
    certificate, key = make_certificate(tmp_path)
    server = trusting("--certfile", str(certificate), "--keyfile", str(key), "--server-base-url", prefix)
    environment = platform(issuer) | {"SSL_CERT_FILE": str(certificate)}
    publish = ("publish", "--trusted-publishing", "always", "--publish-url", f"{server.url}/legacy/", wheel)
    client("uv").run(*publish, env=environment)
    assert (packages / wheel.name).read_bytes() == wheel.read_bytes()


def test_uv_shows_why_there_is_no_token(
    client: Callable[[str], Client], trusting: Callable[..., Server], issuer: FakeIssuer, tmp_path: Path
) -> None:
    """With what the token says, so that its owner can mend the entry."""
    wheel = make_wheel(tmp_path / "dist", "acme-core", "1.0")
    certificate, key = make_certificate(tmp_path)
    server = trusting("--certfile", str(certificate), "--keyfile", str(key))
    issuer.job["repository"] = "acme/other"
    environment = as_on_github(issuer) | {"SSL_CERT_FILE": str(certificate)}
    publish = ("publish", "--trusted-publishing", "always", "--publish-url", f"{server.url}/legacy/", wheel)
    said = client("uv").run(*publish, env=environment, ok=False)
    assert "invalid-publisher" in said
    assert "repository='acme/other'" in said


@PLATFORMS
def test_pdm_publishes(
    client: Callable[[str], Client],
    trusting: Callable[..., Server],
    issuer: FakeIssuer,
    packages: Path,
    tmp_path: Path,
    platform: Callable[[FakeIssuer], dict[str, str]],
) -> None:
    """It keeps the scheme of the URL, here plain http."""
    pdm = client("pdm")
    wheel = make_wheel(pdm.cwd / "dist", "acme-core", "1.0")
    (pdm.cwd / "pyproject.toml").write_text('[project]\nname = "acme-core"\nversion = "1.0"\n')
    server = trusting()
    pdm.run("publish", "--no-build", "--repository", f"{server.url}/", env=platform(issuer))
    assert (packages / wheel.name).read_bytes() == wheel.read_bytes()

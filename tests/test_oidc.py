"""Which identity tokens are believed, and for which projects: every hostile one is refused for its own reason."""

import asyncio
import hashlib
import hmac
import re
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from pypiserver_ng.auth.exchange import Refused, Verified
from pypiserver_ng.auth.oidc import LONGEST, Verifier
from pypiserver_ng.errors import Unavailable
from pypiserver_ng.model import Publisher
from tests.tools.issuer import FakeIssuer, encode, github_claims, gitlab_claims, make_jwk, make_key, running_issuer

CLAIMS = (("repository", "acme/core"), ("workflow", "release.yml"))
ISSUER = "https://issuer.example"


@pytest.fixture(scope="module")
def shared() -> Iterator[FakeIssuer]:
    """One that no test changes."""
    with running_issuer() as issuer:
        yield issuer


@pytest.fixture
def issuer() -> Iterator[FakeIssuer]:
    with running_issuer() as issuer:
        yield issuer


def publisher(issuer: str, claims: tuple[tuple[str, str], ...] = CLAIMS, *projects: str) -> Publisher:
    return Publisher(issuer, "pypiserver-ng", claims, projects or ("acme-core",))


def verify(token: str, *publishers: Publisher) -> Verified:
    return asyncio.run(Verifier(publishers).verify(token))


def refuse(token: str, *publishers: Publisher) -> str:
    """The code and the line that the token is refused with."""
    with pytest.raises(Refused) as refused:
        verify(token, *publishers)
    assert "\n" not in refused.value.message
    return f"{refused.value.code}: {refused.value.message}"


def test_a_sound_token(shared: FakeIssuer) -> None:
    """It speaks for its publisher, under a key of its own, which is known for longer than it is good."""
    claims = shared.claims()
    verified = verify(shared.sign(claims), publisher(shared.url))
    assert verified.publisher == publisher(shared.url)
    assert verified.user == "publisher:127.0.0.1:acme/core"
    assert verified.expires > datetime.fromtimestamp(claims["exp"], UTC) + timedelta(seconds=60)


@pytest.mark.parametrize(
    ("algorithm", "kind"),
    (
        *((f"{family}{bits}", "RSA") for family in ("RS", "PS") for bits in (256, 384, 512)),
        ("ES256", "P-256"),
        ("ES384", "P-384"),
        ("ES512", "P-521"),
        ("EdDSA", "Ed25519"),
    ),
)
def test_algorithms_that_are_accepted(issuer: FakeIssuer, algorithm: str, kind: str) -> None:
    """Each with a key of its kind; none of them knows a shared secret."""
    issuer.rotate("one", algorithm, make_key(kind))
    assert verify(issuer.mint(), publisher(issuer.url)).publisher.projects == ("acme-core",)


def public_pem(issuer: FakeIssuer) -> bytes:
    key = issuer.keys["one"][1].public_key()
    pem: bytes = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return pem


def forge(issuer: FakeIssuer, header: dict[str, Any], secret: bytes | None = None) -> str:
    """A token that is signed with a secret, or not at all."""
    signed = f"{encode({'kid': 'one', 'typ': 'JWT', **header})}.{encode(issuer.claims())}"
    return f"{signed}.{encode(hmac.digest(secret, signed.encode(), 'sha256')) if secret is not None else ''}"


def change(token: str, part: int, new: str) -> str:
    parts = token.split(".")
    parts[part] = new
    return ".".join(parts)


def elsewhere(issuer: FakeIssuer, header: str) -> str:
    """A token that brings its own key, or the way to it."""
    own = make_key("RSA", 7)
    jwk = make_jwk(own, "RS256", "own")
    return issuer.sign(
        issuer.claims(), {header: jwk if header == "jwk" else f"{issuer.url}/own", "kid": "own"}, key=own
    )


HOSTILE: dict[str, tuple[Callable[[FakeIssuer], str], str]] = {
    "unsigned": (lambda issuer: forge(issuer, {"alg": "none"}), "invalid-token: .*RS256"),
    "unsigned, spelled otherwise": (lambda issuer: forge(issuer, {"alg": "NoNe"}), "invalid-token: .*RS256"),
    "signed with the public key": (
        lambda issuer: forge(issuer, {"alg": "HS256"}, public_pem(issuer)),
        "invalid-token: .*RS256",
    ),
    "signed with nothing": (lambda issuer: forge(issuer, {"alg": "HS256"}, b""), "invalid-token: .*RS256"),
    "no algorithm": (lambda issuer: forge(issuer, {}), "invalid-token: .*RS256"),
    "an algorithm that is none": (lambda issuer: forge(issuer, {"alg": ["RS256"]}), "invalid-token: .*RS256"),
    "another algorithm of the key": (
        lambda issuer: change(issuer.mint(), 0, encode({"alg": "RS512", "kid": "one"})),
        "invalid-token: .*does not have now",
    ),
    "another header": (
        lambda issuer: change(issuer.mint(), 0, encode({"alg": "RS256", "kid": "one", "more": 1})),
        "invalid-token: .*signature",
    ),
    "other claims": (
        lambda issuer: change(issuer.mint(), 1, encode(issuer.claims(repository="acme/core"))),
        "invalid-token: .*signature",
    ),
    "no signature": (lambda issuer: change(issuer.mint(), 2, ""), "invalid-token: .*signature"),
    "a stranger's key": (
        lambda issuer: issuer.sign(issuer.claims(), key=make_key("RSA", 8)),
        "invalid-token: .*signature",
    ),
    "an unknown key": (lambda issuer: issuer.sign(issuer.claims(), {"kid": "two"}), "invalid-token: .*not have now"),
    "a key in a file": (
        lambda issuer: issuer.sign(issuer.claims(), {"kid": "../../../../etc/hostname"}),
        "invalid-token: .*not have now",
    ),
    "a key that is no text": (lambda issuer: forge(issuer, {"alg": "RS256", "kid": 1}), "invalid-payload: "),
    "a key set of its own": (lambda issuer: elsewhere(issuer, "jku"), "invalid-token: .*not have now"),
    "a certificate of its own": (lambda issuer: elsewhere(issuer, "x5u"), "invalid-token: .*not have now"),
    "a key of its own": (lambda issuer: elsewhere(issuer, "jwk"), "invalid-token: .*not have now"),
    "something critical": (
        lambda issuer: forge(issuer, {"alg": "RS256", "crit": ["x"], "x": 1}),
        "invalid-payload: ",
    ),
    "claims elsewhere": (
        lambda issuer: forge(issuer, {"alg": "RS256", "b64": False, "crit": ["b64"]}),
        "invalid-payload: ",
    ),
    "another issuer": (lambda issuer: issuer.mint(iss="https://evil.example"), "invalid-publisher: .*issuer"),
    "an issuer almost": (lambda issuer: issuer.mint(iss=f"{issuer.url}/"), "invalid-publisher: .*issuer"),
    "several issuers": (lambda issuer: issuer.mint(iss=[issuer.url]), "invalid-publisher: .*issuer"),
    "no issuer": (lambda issuer: issuer.mint(iss=None), "invalid-publisher: .*issuer"),
    "another audience": (lambda issuer: issuer.mint(audience="elsewhere"), "invalid-token: .*audience"),
    "an audience almost": (lambda issuer: issuer.mint(audience="PypiServer-NG"), "invalid-token: .*audience"),
    "several audiences": (
        lambda issuer: issuer.mint(audience=["pypiserver-ng", "elsewhere"]),
        "invalid-token: .*audience",
    ),
    "an audience that is none": (lambda issuer: issuer.mint(audience={"a": 1}), "invalid-token: .*audience"),
    "no audience": (lambda issuer: issuer.mint(audience=None), "invalid-token: .*'aud'"),
    "expired": (lambda issuer: issuer.mint(exp=int(time.time()) - 61), "invalid-token: .*expired"),
    "no end": (lambda issuer: issuer.mint(exp=None), "invalid-token: .*'exp'"),
    "an end that is none": (lambda issuer: issuer.mint(exp="soon"), "invalid-token: .*wrong"),
    "an end beyond numbers": (lambda issuer: issuer.mint(exp=float("inf")), "invalid-token: "),
    "an end that nobody lives to see": (lambda issuer: issuer.mint(exp=10**30), "invalid-token: .*366 days"),
    "not yet": (lambda issuer: issuer.mint(nbf=int(time.time()) + 120), "invalid-token: .*clocks"),
    "made tomorrow": (lambda issuer: issuer.mint(iat=int(time.time()) + 120), "invalid-token: .*clocks"),
    "made at no time": (lambda issuer: issuer.mint(iat=None), "invalid-token: .*'iat'"),
    "an id that is no text": (lambda issuer: issuer.mint(jti=["x"]), "invalid-token: .*wrong"),
    "another repository": (
        lambda issuer: issuer.mint(**github_claims("acme/other")),
        "invalid-publisher: .*repository='acme/other', job_workflow_ref='",
    ),
    "a repository with another case": (lambda issuer: issuer.mint(**github_claims("Acme/core")), "invalid-publisher"),
    "no repository": (lambda issuer: issuer.mint(repository=None), "invalid-publisher: .*repository=''"),
    "several repositories": (
        lambda issuer: issuer.mint(repository=["acme/core"]),
        "invalid-publisher: .*repository=''",
    ),
    "another workflow": (lambda issuer: issuer.mint(**github_claims(workflow="test.yml")), "invalid-publisher"),
    "another workflow with that title": (
        lambda issuer: issuer.mint(**github_claims(workflow="test.yml") | {"workflow": "release.yml"}),
        "invalid-publisher",
    ),
    "a workflow of another repository": (
        lambda issuer: issuer.mint(job_workflow_ref="evil/x/.github/workflows/release.yml@refs/heads/main"),
        "invalid-publisher",
    ),
    "a workflow in another place": (
        lambda issuer: issuer.mint(job_workflow_ref="acme/core/.github/workflows/x/release.yml@refs/heads/main"),
        "invalid-publisher",
    ),
    "a workflow that goes on": (
        lambda issuer: issuer.mint(job_workflow_ref="acme/core/.github/workflows/release.yml.yml@refs/heads/main"),
        "invalid-publisher",
    ),
    "a list of claims": (lambda issuer: issuer.sign([issuer.claims()]), "invalid-payload: "),
    "claims that are not JSON": (lambda issuer: issuer.sign(b"claims"), "invalid-payload: "),
    "claims that are not text": (lambda issuer: issuer.sign(b'{"iss": "\xff"}'), "invalid-payload: "),
    "deep claims": (lambda issuer: issuer.sign(b'{"x":' + b"[" * 10_000), "invalid-payload: "),
    "a deep header": (lambda issuer: change(issuer.mint(), 0, encode(b"[" * 10_000)), "invalid-payload: "),
    "huge": (lambda issuer: issuer.mint(more="x" * LONGEST), "invalid-payload: .*16 KiB"),
    "nothing": (lambda _: "", "invalid-payload: "),
    "dots": (lambda _: "..", "invalid-payload: "),
    "five parts": (lambda issuer: f"{issuer.mint()}.x.y", "invalid-payload: "),
    "not ASCII": (lambda issuer: f"{issuer.mint()}é", "invalid-payload: "),
    "no text": (lambda issuer: f"{issuer.mint()}\ud800", "invalid-payload: "),
    "a line more": (lambda issuer: f"{issuer.mint()}\n", "invalid-payload: "),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_token_is_refused(shared: FakeIssuer, what: str) -> None:
    """With its code and one line; and nobody but the issuer's own documents was asked for."""
    make, said = HOSTILE[what]
    token = make(shared)
    refusal = refuse(token, publisher(shared.url))
    assert re.match(said, refusal), refusal
    assert set(shared.requests) <= {"/.well-known/openid-configuration", "/keys"}


def test_nobody_but_configured_issuers_is_asked(issuer: FakeIssuer) -> None:
    """A stranger's token leads nowhere."""
    refuse(issuer.mint(), publisher(ISSUER))
    assert issuer.requests == []


@pytest.mark.parametrize("claim", ("exp", "nbf", "iat"))
def test_clocks_may_differ_a_little(shared: FakeIssuer, claim: str) -> None:
    """By half a minute here."""
    moment = int(time.time()) + (-30 if claim == "exp" else 30)
    verify(shared.mint(**{claim: moment}), publisher(shared.url))


def test_a_weak_key_is_not_believed(issuer: FakeIssuer) -> None:
    """RSA keys of 1024 bits have been too short for a long time."""
    issuer.rotate("one", "RS256", make_key("weak RSA"))
    with warnings.catch_warnings(action="ignore"):
        assert "invalid-token" in refuse(issuer.mint(), publisher(issuer.url))


def test_a_key_that_is_none(issuer: FakeIssuer) -> None:
    """The issuer publishes something odd under the id that a token names."""
    issuer.published = {"keys": [{"kty": "RSA", "kid": "one", "n": 1, "e": []}]}
    assert "invalid-token" in refuse(issuer.mint(), publisher(issuer.url))


def test_an_audience_may_be_a_list_of_one(shared: FakeIssuer) -> None:
    """Some issuers write it so."""
    verify(shared.mint(audience=["pypiserver-ng"]), publisher(shared.url))


def test_copies_of_a_token_are_known_as_such(shared: FakeIssuer) -> None:
    """By its id, or where it has none by what was signed: the signature can be written in another way."""
    one, two = shared.claims(), shared.claims()
    who = publisher(shared.url)
    assert verify(shared.sign(one), who).key == verify(shared.sign(one), who).key
    assert verify(shared.sign(one), who).key != verify(shared.sign(two), who).key
    del one["jti"], two["jti"]
    two["run_attempt"] = "2"
    token = shared.sign(one)
    assert verify(token, who).key == verify(f"{token}==", who).key
    assert verify(token, who).key != verify(shared.sign(two), who).key
    assert token not in verify(token, who).key
    assert verify(token, who).key == hashlib.sha256(f"{shared.url}\n{token.rpartition('.')[0]}".encode()).hexdigest()


@pytest.mark.parametrize(
    ("claims", "token", "fits"),
    (
        ((("repository", "acme/core"),), {}, True),
        ((("repository_id", "74"), ("event_name", "release")), {}, True),
        ((("workflow", "Release"),), {}, True),
        ((("workflow", "release.yml"),), github_claims("other/x", "release.yml"), True),
        ((("workflow", "release.yml"),), {"workflow": "release.yml", "job_workflow_ref": None}, True),
        ((("workflow", "release.yml"),), {"workflow": "Release", "job_workflow_ref": None}, False),
        ((("email_verified", "true"),), {"email_verified": True}, True),
        ((("email_verified", "true"),), {"email_verified": False}, False),
        ((("project", "17"),), {"project": 17}, True),
        ((("repository", "acme/*"),), {}, False),
        ((("repository", "acme/core"), ("environment", "release")), {}, False),
        ((("repository", "acme/core"), ("environment", "release")), {"environment": "release"}, True),
    ),
)
def test_claims_are_compared_as_text(
    shared: FakeIssuer, claims: tuple[tuple[str, str], ...], token: dict[str, Any], fits: bool
) -> None:
    """All of them, letter by letter; a workflow by its file."""
    who = publisher(shared.url, claims)
    if fits:
        verify(shared.mint(**token), who)
    else:
        assert "invalid-publisher" in refuse(shared.mint(**token), who)


@pytest.mark.parametrize(
    ("claims", "token", "fits"),
    (
        ((("project_path", "acme/core"),), gitlab_claims(), True),
        ((("repository", "acme/core"), ("workflow", ".gitlab-ci.yml")), gitlab_claims(), True),
        ((("repository", "acme/core"), ("workflow", "ci/x.yml")), gitlab_claims(file="ci/x.yml"), True),
        ((("repository", "acme/core"), ("workflow", ".gitlab-ci.yml")), gitlab_claims(file="ci/.gitlab-ci.yml"), False),
        ((("repository", "acme/core"),), gitlab_claims("acme/sub/core"), False),
        (
            (("repository", "acme/core"), ("workflow", ".gitlab-ci.yml")),
            gitlab_claims() | {"ci_config_ref_uri": "gitlab.example/evil/x//.gitlab-ci.yml@refs/heads/main"},
            False,
        ),
        (
            (("repository", "acme/core"), ("workflow", ".gitlab-ci.yml")),
            gitlab_claims() | {"workflow": ".gitlab-ci.yml", "ci_config_ref_uri": 1},
            False,
        ),
    ),
)
def test_gitlab_has_names_of_its_own(
    issuer: FakeIssuer, claims: tuple[tuple[str, str], ...], token: dict[str, Any], fits: bool
) -> None:
    """What attestations call repository and workflow means the same in its tokens."""
    issuer.job = token
    who = publisher(issuer.url, claims)
    if fits:
        verify(issuer.mint(), who)
    else:
        assert "invalid-publisher" in refuse(issuer.mint(), who)


def test_a_token_that_fits_several_entries_has_the_projects_of_all(shared: FakeIssuer) -> None:
    """In their order and once each; the first that fits gives it its name."""
    entries = (
        publisher(shared.url, (("repository", "acme/other"),), "other"),
        publisher(shared.url, (("repository", "acme/core"),), "acme-core", "acme-*"),
        publisher(ISSUER, (("repository", "acme/core"),), "elsewhere"),
        publisher(shared.url, (("ref", "refs/tags/v1"),), "acme-*", "tagged"),
        replace(publisher(shared.url, CLAIMS, "another-audience"), audience="another"),
    )
    verified = verify(shared.mint(), *entries)
    assert verified.publisher == replace(entries[1], projects=("acme-core", "acme-*", "tagged"))
    assert verify(shared.mint(audience="another"), *entries).publisher == entries[4]


def test_an_issuer_that_is_down_is_nobodys_fault(issuer: FakeIssuer) -> None:
    """It can be told later whether the token is sound."""
    issuer.status = 500
    with pytest.raises(Unavailable, match="answered 500"):
        verify(issuer.mint(), publisher(issuer.url))

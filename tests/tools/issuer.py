"""An issuer of identities in a thread: discovery, keys that rotate, and tokens like those of GitHub and GitLab.

It also answers as GitHub's runners are answered when a job asks for its token. Knows nothing of the program under test.
"""

import base64
import json
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms

_DISCOVERY = "/.well-known/openid-configuration"
#: What a job proves itself with to its runner.
RUNNER_SECRET = "runner-secret"
_CURVES: dict[str, ec.EllipticCurve] = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}


@cache
def make_key(kind: str, number: int = 0) -> Any:
    """A private key; the same for the same arguments, since some take long to make."""
    if kind == "RSA":
        return rsa.generate_private_key(65537, 2048)
    if kind == "weak RSA":
        return rsa.generate_private_key(65537, 1024)
    if kind == "Ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key(_CURVES[kind])


def make_jwk(key: Any, algorithm: str, kid: str | None) -> dict[str, Any]:
    """The public half as the issuer publishes it."""
    found = get_default_algorithms()[algorithm].to_jwk(key.public_key(), as_dict=True)
    return {**found, "use": "sig", "alg": algorithm} | ({} if kid is None else {"kid": kid})


def github_claims(repository: str = "acme/core", workflow: str = "release.yml") -> dict[str, Any]:
    """What a job's token says; `workflow` is the file's name."""
    reference = f"{repository}/.github/workflows/{workflow}@refs/tags/v1"
    return {
        "sub": f"repo:{repository}:ref:refs/tags/v1",
        "repository": repository,
        "repository_owner": repository.partition("/")[0],
        "repository_id": "74",
        "workflow": "Release",
        "workflow_ref": reference,
        "job_workflow_ref": reference,
        "ref": "refs/tags/v1",
        "event_name": "release",
        "run_attempt": "1",
    }


def gitlab_claims(project: str = "acme/core", file: str = ".gitlab-ci.yml") -> dict[str, Any]:
    """What a job's token says; `file` is the path of its configuration."""
    return {
        "sub": f"project_path:{project}:ref_type:branch:ref:main",
        "project_path": project,
        "namespace_path": project.rpartition("/")[0],
        "ref": "main",
        "ref_protected": "true",
        "ci_config_ref_uri": f"gitlab.example/{project}//{file}@refs/heads/main",
        "pipeline_source": "push",
    }


def encode(part: Any) -> str:
    """One part of a token, from a value or from bytes."""
    raw = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


class FakeIssuer:
    """What it publishes may be changed at any time; `requests` are the paths that were asked for."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.requests: list[str] = []
        #: By their ids, what tokens are signed with: algorithm and private key.
        self.keys: dict[str, tuple[str, Any]] = {"one": ("RS256", make_key("RSA"))}
        self.discovery: Any = {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
        #: Instead of the keys; bytes as they are.
        self.published: Any = None
        self.status = 200
        #: What its answers are said to be packed with.
        self.coding = ""
        #: Claims of the tokens that runners are given.
        self.job = github_claims()

    @property
    def token_url(self) -> str:
        """As a job finds it in ACTIONS_ID_TOKEN_REQUEST_URL."""
        return f"{self.url}/token?job=1"

    def rotate(self, kid: str, algorithm: str = "RS256", key: Any = None) -> None:
        """From now on this key alone is published and signs."""
        self.keys = {kid: (algorithm, key or make_key("RSA", len(self.requests) + 1))}

    def claims(self, audience: Any = "pypiserver-ng", **more: Any) -> dict[str, Any]:
        """A sound token's claims; what is None is left out."""
        now = int(time.time())
        usual = {"iss": self.url, "aud": audience, "iat": now, "nbf": now, "exp": now + 300, "jti": str(uuid.uuid4())}
        return {name: value for name, value in (usual | self.job | more).items() if value is not None}

    def mint(self, **claims: Any) -> str:
        """A token, signed with the first key; see `claims`."""
        return self.sign(self.claims(**claims))

    def sign(
        self, claims: Any, headers: Mapping[str, Any] | None = None, *, kid: str | None = None, key: Any = None
    ) -> str:
        kid = kid or next(iter(self.keys))
        algorithm, private = self.keys.get(kid, self.keys[next(iter(self.keys))])
        header = {"kid": kid, **(headers or {})}
        named = {name: value for name, value in header.items() if value is not None}
        payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
        return jwt.api_jws.encode(payload, key or private, algorithm, named)

    def answer(self, path: str, authorization: str) -> tuple[int, bytes]:
        """Status and body for one path."""
        parts = urlsplit(path)
        if parts.path == "/token":
            if authorization.rpartition(" ")[2] != RUNNER_SECRET:
                return 403, b"{}"
            return 200, json.dumps({"value": self.mint(audience=parse_qs(parts.query)["audience"][0])}).encode()
        if parts.path.endswith(_DISCOVERY):
            return self.status, _to_bytes(self.discovery)
        if parts.path == "/keys":
            keys = [make_jwk(key, algorithm, kid) for kid, (algorithm, key) in self.keys.items()]
            return self.status, _to_bytes({"keys": keys} if self.published is None else self.published)
        return 404, b"{}"


def _to_bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value).encode()


@contextmanager
def running_issuer() -> Iterator[FakeIssuer]:
    """An issuer on a free port for the length of a block."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as listener:
        issuer = FakeIssuer(listener.server_port)
        listener.issuer = issuer  # type: ignore[attr-defined]
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield issuer
        finally:
            listener.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        issuer: FakeIssuer = self.server.issuer  # type: ignore[attr-defined]
        issuer.requests.append(self.path)
        status, body = issuer.answer(self.path, self.headers.get("authorization", ""))
        self.send_response(status)
        if status in {302, 307}:
            self.send_header("Location", f"{issuer.url}/elsewhere")
        if issuer.coding:
            self.send_header("Content-Encoding", issuer.coding)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the standard library's name
        """Stay quiet: the requests are kept."""

"""Whether an identity token is sound, and which publisher it speaks for.

Specification: OpenID Connect Core 1.0 (ID tokens), RFC 7519 and RFC 8725 (JSON Web Tokens). Nothing that a token says
is used before its signature was verified, but its issuer's name, to find the keys: only configured issuers are asked.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt

from pypiserver_ng.auth.exchange import Refused, Verified
from pypiserver_ng.auth.issuers import ALGORITHMS, Fetch, Issuer, Key, fetch_keys
from pypiserver_ng.model import Publisher

#: Characters.
LONGEST = 16 * 1024
#: By how much clocks may differ.
LEEWAY = timedelta(seconds=60)
#: For which a token that has ended is still known as used: a clock may be put back, and a disk may be slow.
_MARGIN = timedelta(hours=1)
#: No token is good for longer; used ones have to be known until they end.
_LONGEST_LIFE = timedelta(days=366)
_LONGEST_SHOWN = 100
_FILES = (".yml", ".yaml")

Claims = Mapping[str, Any]


class Verifier:
    """Knows the configured publishers and their issuers' keys. Belongs to one event loop."""

    def __init__(self, publishers: Sequence[Publisher], fetch: Fetch = fetch_keys) -> None:
        self._publishers = publishers
        self._issuers = {publisher.issuer: Issuer(publisher.issuer, fetch) for publisher in publishers}

    async def verify(self, text: str) -> Verified:
        """What the token proves. Raises Refused, and Unavailable where its issuer does not answer."""
        if len(text) > LONGEST:
            raise Refused("invalid-payload", f"the token is no JWT of at most {LONGEST // 1024} KiB")
        algorithm, number, issuer = _peek(text)
        if algorithm not in ALGORITHMS:
            raise Refused("invalid-token", "the token is signed in a way that is not accepted here: use RS256 or ES256")
        if issuer not in self._issuers:
            raise Refused("invalid-publisher", "the token's issuer is that of no [[publisher]] entry")
        key = await self._issuers[issuer].find(number, algorithm)
        if key is None:
            raise Refused("invalid-token", "the token is signed with a key that its issuer does not have now")
        claims = _decode(text, key, algorithm, issuer)
        publisher = self._match(claims)
        expires = datetime.fromtimestamp(int(claims["exp"]), UTC) + LEEWAY + _MARGIN
        return Verified(publisher, _identify(text, claims), expires)

    def _match(self, claims: Claims) -> Publisher:
        """The first entry that the token fits, with the projects of all that it fits."""
        audience = _only(claims["aud"])
        addressed = [
            publisher
            for publisher in self._publishers
            if publisher.issuer == claims["iss"] and publisher.audience == audience
        ]
        if not addressed:
            raise Refused("invalid-token", "the token is made out to another audience than /_/oidc/audience names")
        fitting = [one for one in addressed if all(_says(claims, name, value) for name, value in one.claims)]
        if not fitting:
            raise Refused(
                "invalid-publisher", f"the token is sound, but fits no [[publisher]] entry: {_show(claims, addressed)}"
            )
        return replace(fitting[0], projects=tuple(dict.fromkeys(glob for one in fitting for glob in one.projects)))


def _peek(text: str) -> tuple[object, str | None, object]:
    """Algorithm, key id and issuer as the token names them; nobody vouches for them yet."""
    try:
        found = jwt.decode_complete(text, options={"verify_signature": False})
    except Exception:  # whatever the library thinks of hostile bytes, the caller gets a refusal
        raise Refused("invalid-payload", "the token is not a JWT") from None
    header, issuer = found["header"], found["payload"].get("iss")
    algorithm = header.get("alg")
    return (
        algorithm if isinstance(algorithm, str) else None,
        header.get("kid"),
        issuer if isinstance(issuer, str) else None,
    )


def _decode(text: str, key: Key, algorithm: str, issuer: str) -> Claims:
    """The claims of a token whose signature and times are sound. Who it is made out to is left to the caller."""
    try:
        claims: Claims = jwt.decode(
            text,
            jwt.PyJWK(key.jwk, algorithm),
            [algorithm],
            options={
                "require": ["iss", "aud", "exp", "iat"],
                "verify_aud": False,
                "enforce_minimum_key_length": True,
            },
            issuer=issuer,
            leeway=LEEWAY,
        )
    except jwt.ExpiredSignatureError:
        raise Refused("invalid-token", "the token has expired: ask your issuer for a new one") from None
    except jwt.ImmatureSignatureError:
        raise Refused("invalid-token", "the token is not valid yet: compare the clocks") from None
    except jwt.MissingRequiredClaimError as fault:
        raise Refused("invalid-token", f"the token has no claim {fault.claim!r}") from None
    except Exception:  # as above
        raise Refused("invalid-token", "the token's signature or one of its claims is wrong") from None
    if int(claims["exp"]) > (datetime.now(UTC) + _LONGEST_LIFE).timestamp():
        raise Refused("invalid-token", f"the token is good for more than {_LONGEST_LIFE.days} days")
    return claims


def _only(audience: object) -> object:
    # Whoever else a token is made out to could bring it here.
    return audience[0] if isinstance(audience, list) and len(audience) == 1 else audience


def _identify(text: str, claims: Claims) -> str:
    """Two copies of one token are equal by this, however they are spelled.

    Without an id it is what was signed: one signature can be written in several ways.
    """
    number = claims.get("jti") or text.rpartition(".")[0]
    return hashlib.sha256(f"{claims['iss']}\n{number}".encode()).hexdigest()


def _says(claims: Claims, name: str, value: str) -> bool:
    """Whether the token has the claim, letter by letter."""
    if name == "workflow" and value.endswith(_FILES):
        return _runs(claims, value)
    return _read(claims, name) == value


def _runs(claims: Claims, file: str) -> bool:
    """Whether the token was made for this workflow file of its own repository.

    GitHub's claim `workflow` is a title that anybody who writes a workflow can choose; GitLab has none.
    """
    if "job_workflow_ref" in claims:
        return str(claims["job_workflow_ref"]).startswith(f"{claims.get('repository')}/.github/workflows/{file}@")
    if "ci_config_ref_uri" in claims:
        path = str(claims["ci_config_ref_uri"]).partition("/")[2]
        return path.startswith(f"{claims.get('project_path')}//{file}@")
    return _read(claims, "workflow") == file


def _read(claims: Claims, name: str) -> str | None:
    """One claim as text; lists and tables have none."""
    if name == "repository" and name not in claims:
        name = "project_path"  # as GitLab calls it
    value = claims.get(name)
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, str | int) else None


def _show(claims: Claims, publishers: Iterable[Publisher]) -> str:
    """What the token says of all that the entries ask for."""
    asked = dict.fromkeys(claim for publisher in publishers for claim in publisher.claims)
    names = dict.fromkeys(_name_compared(claims, name, value) for name, value in asked)
    return ", ".join(f"{name}={(_read(claims, name) or '')[:_LONGEST_SHOWN]!a}" for name in names)


def _name_compared(claims: Claims, name: str, value: str) -> str:
    """The claim that is looked at for one of an entry; see `_runs`."""
    if name == "workflow" and value.endswith(_FILES):
        return next((other for other in ("job_workflow_ref", "ci_config_ref_uri") if other in claims), name)
    return name

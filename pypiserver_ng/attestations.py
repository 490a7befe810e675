"""PEP 740 attestations of an upload become its provenance object, or Invalid with what is wrong.

The structure is checked with this room's own types, so that every server refuses garbage. Signatures are verified
with the optional extra `attestations`, whose import is slow: it happens with the first attestation of a project that
somebody is trusted to speak for. Takes text and returns bytes; knows no form, no file and no catalog, and never asks
the network: the certificates and keys that it trusts are those that came with the extra.
"""

import binascii
import functools
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib import resources
from typing import Annotated, Any, Literal
from urllib.parse import quote

import msgspec
from packaging.utils import parse_sdist_filename, parse_wheel_filename

from pypiserver_ng.errors import Invalid
from pypiserver_ng.model import NormalizedName, ParsedFilename, Publisher

#: Most attestations of one file; each predicate type may occur once.
MAX_ATTESTATIONS = 8
#: Longest text in characters; a real attestation has about ten thousand.
MAX_SIZE = 2**20
#: Longest subject name in characters: the tags of a wheel's name are multiplied out when it is parsed.
MAX_NAME = 255
#: Longest reason of an Invalid in characters, from which the middle is left out; parts of it come from certificates.
MAX_REASON = 320

#: Under this name sigstore brings the trusted root of its public instance.
_TRUSTED_ROOT = (quote("https://tuf-repo-cdn.sigstore.dev", safe=""), "trusted_root.json")


class _Material(msgspec.Struct, frozen=True):
    certificate: str
    transparency_entries: Annotated[list[dict[str, Any]], msgspec.Meta(min_length=1)]


class _Envelope(msgspec.Struct, frozen=True):
    statement: str
    signature: str


class _Attestation(msgspec.Struct, frozen=True):
    """Its specification: "signers may include additional keys"; they are left out of what is shown."""

    version: Literal[1]
    verification_material: _Material
    envelope: _Envelope


class _Subject(msgspec.Struct, frozen=True):
    digest: dict[str, str]
    name: str | None = None


class _Statement(msgspec.Struct, frozen=True, rename={"type_": "_type", "predicate_type": "predicateType"}):
    type_: Literal["https://in-toto.io/Statement/v1"]
    subject: Annotated[list[_Subject], msgspec.Meta(min_length=1)]
    predicate_type: str


_ATTESTATIONS = msgspec.json.Decoder(
    Annotated[list[_Attestation], msgspec.Meta(min_length=1, max_length=MAX_ATTESTATIONS)]
)
_STATEMENT = msgspec.json.Decoder(_Statement)


@dataclass(frozen=True, slots=True)
class _Read:
    """One attestation whose structure is sound: its compact JSON, and the bytes that were signed."""

    content: bytes
    payload: bytes
    #: How many entries of the transparency log it names.
    entries: int


@dataclass(frozen=True, slots=True)
class _Issuer:
    """A kind of publisher that pypi-attestations knows: claims of the configuration by the field each becomes."""

    kind: str
    required: Mapping[str, str]
    optional: Mapping[str, str] = field(default_factory=dict)
    #: Claims of a token that no signing certificate carries: they can neither be verified here nor be shown.
    uncertified: frozenset[str] = frozenset()


_ISSUERS = {
    "https://token.actions.githubusercontent.com": _Issuer(
        "GitHub",
        {"repository": "repository", "workflow": "workflow"},
        uncertified=frozenset({"environment"}),
    ),
    "https://gitlab.com": _Issuer(
        "GitLab",
        {"repository": "repository", "workflow": "workflow_filepath"},
        uncertified=frozenset({"environment"}),
    ),
    "https://accounts.google.com": _Issuer("Google", {"email": "email"}, uncertified=frozenset({"sub"})),
    "https://oidc.circleci.com": _Issuer(
        "CircleCI",
        {"project_id": "project_id", "pipeline_definition_id": "pipeline_definition_id"},
        optional={"vcs_origin": "vcs_origin", "vcs_ref": "vcs_ref"},
    ),
}


@dataclass(frozen=True, slots=True)
class _Speaker:
    """A publisher in the words of a provenance object."""

    kind: str
    fields: tuple[tuple[str, str], ...]


def is_available() -> bool:
    """Whether the extra is installed; does not import it."""
    return importlib.util.find_spec("pypi_attestations") is not None


class AttestationVerifier:
    """Checks attestations against the configured publishers. Any number of threads may use one."""

    def __init__(self, publishers: Sequence[Publisher]) -> None:
        speakers = [(publisher.projects, _read_speaker(publisher)) for publisher in publishers]
        self._speakers = [(projects, speaker) for projects, speaker in speakers if speaker is not None]

    def check(self, text: str, parsed: ParsedFilename, sha256: str) -> bytes | None:
        """The provenance object of a file, from the upload's field `attestations`, a JSON array of PEP 740 objects.

        Compact JSON, the same bytes for the same text, with one bundle for each publisher that made some. None where
        no configured publisher may speak for the project, or the extra is not installed: then nothing was verified
        and nothing is to be shown.

        `sha256` is the file's digest in lower-case hex. Raises Invalid with one line.
        """
        attestations = _read_attestations(text)
        speakers = self._find_speakers(parsed.name)
        if not speakers or not is_available():
            return None
        statements = [_read_statement(number, each) for number, each in enumerate(attestations, 1)]
        _check_statements(statements, parsed, sha256)
        _check_entries(attestations)
        made: dict[_Speaker, list[msgspec.Raw]] = {}
        for number, attestation in enumerate(attestations, 1):
            made.setdefault(_identify(number, attestation, speakers), []).append(msgspec.Raw(attestation.content))
        return _encode_provenance(made)

    def _find_speakers(self, project: NormalizedName) -> list[_Speaker]:
        matching = [speaker for globs, speaker in self._speakers if any(fnmatchcase(project, each) for each in globs)]
        return list(dict.fromkeys(matching))


def describe_useless(publishers: Sequence[Publisher]) -> list[str]:
    """One line for each publisher whose attestations cannot be verified, and why; it may be there for tokens alone."""
    return [
        f"[[publisher]] number {number} gets tokens, but verifies no attestations: {reason}"
        for number, publisher in enumerate(publishers, 1)
        if (reason := _find_reason(publisher))
    ]


def _find_reason(publisher: Publisher) -> str | None:
    issuer = _ISSUERS.get(publisher.issuer)
    if issuer is None:
        return f"the issuer is none of {', '.join(_ISSUERS)}"
    claims = {name for name, _ in publisher.claims}
    if missing := issuer.required.keys() - claims:
        return f"the claim {min(missing)!r} is missing"
    if unknown := claims - issuer.required.keys() - issuer.optional.keys() - issuer.uncertified:
        return f"the claim {min(unknown)!r} cannot be proved by a certificate"
    return None


def _read_speaker(publisher: Publisher) -> _Speaker | None:
    """None where no attestation can prove what the publisher's claims demand, but for those that no certificate has."""
    if _find_reason(publisher):
        return None
    issuer = _ISSUERS[publisher.issuer]
    claims = dict(publisher.claims)
    known = {**issuer.required, **issuer.optional}
    return _Speaker(issuer.kind, tuple((known[claim], claims[claim]) for claim in known if claim in claims))


def _read_attestations(text: str) -> list[_Read]:
    if len(text) > MAX_SIZE:
        raise _fault(f"longer than {MAX_SIZE} characters")
    try:
        attestations = _ATTESTATIONS.decode(text)
        contents = [msgspec.json.encode(each, order="deterministic") for each in attestations]
    except (ValueError, RecursionError) as fault:
        raise _fault(_describe(fault)) from None
    pairs = zip(attestations, contents, strict=True)
    return [_read_attestation(number, *pair) for number, pair in enumerate(pairs, 1)]


def _read_attestation(number: int, attestation: _Attestation, content: bytes) -> _Read:
    _decode_base64(number, "certificate", attestation.verification_material.certificate)
    _decode_base64(number, "signature", attestation.envelope.signature)
    payload = _decode_base64(number, "statement", attestation.envelope.statement)
    return _Read(content, payload, len(attestation.verification_material.transparency_entries))


def _read_statement(number: int, attestation: _Read) -> _Statement:
    try:
        return _STATEMENT.decode(attestation.payload)
    except (ValueError, RecursionError) as fault:
        raise _fault(f"the statement of number {number} is not an in-toto v1 statement: {_describe(fault)}") from None


def _decode_base64(number: int, name: str, text: str) -> bytes:
    try:
        # Encoders that follow MIME break their lines.
        content = binascii.a2b_base64(text.replace("\n", ""), strict_mode=True)
    except ValueError:
        content = b""
    if not content:
        raise _fault(f"the {name} of number {number} is not base64")
    return content


def _check_entries(attestations: Sequence[_Read]) -> None:
    """Only the first entry of the log is verified, so nothing else may be shown."""
    for number, attestation in enumerate(attestations, 1):
        if attestation.entries != 1:
            raise _fault(f"number {number} has {attestation.entries} transparency entries, not one")


def _check_statements(statements: Sequence[_Statement], parsed: ParsedFilename, sha256: str) -> None:
    from pypi_attestations import AttestationType  # noqa: PLC0415 - optional, and slow to import

    known = [each.value for each in AttestationType]
    seen: set[str] = set()
    for number, statement in enumerate(statements, 1):
        kind = statement.predicate_type
        if kind not in known:
            raise _fault(f"number {number} has the predicate type {kind!r}, not one of {', '.join(known)}")
        if kind in seen:
            raise _fault(f"number {number} is a second one with the predicate type {kind}")
        seen.add(kind)
        if len(statement.subject) != 1:
            raise _fault(f"number {number} has {len(statement.subject)} subjects, not one")
        subject = statement.subject[0]
        if not _is_same_name(subject.name or "", parsed.filename):
            raise _fault(f"number {number} is of {subject.name!r}, not of {parsed.filename}")
        if subject.digest.get("sha256") != sha256:
            raise _fault(f"number {number} is of other bytes: its sha256 is not that of {parsed.filename}")


def _is_same_name(subject: str, filename: str) -> bool:
    """Whether both name the same distribution, as pypi-attestations compares them: parsed, not by letters."""
    if subject == filename:
        return True
    try:
        return len(subject) <= MAX_NAME and _split_filename(subject) == _split_filename(filename)
    except ValueError:
        return False


def _split_filename(filename: str) -> tuple[Any, ...]:
    return parse_wheel_filename(filename) if filename.endswith(".whl") else parse_sdist_filename(filename)


def _identify(number: int, attestation: _Read, speakers: Sequence[_Speaker]) -> _Speaker:
    """The first publisher that made the attestation."""
    reasons = []
    for speaker in speakers:
        reason = _refute(attestation, speaker)
        if reason is None:
            return speaker
        reasons.append(reason)
    raise _fault(f"number {number} is not verified: {'; '.join(dict.fromkeys(reasons))}")


def _refute(attestation: _Read, speaker: _Speaker) -> str | None:
    """Why the attestation is not the publisher's; None where it is."""
    import pypi_attestations  # noqa: PLC0415 - optional, and slow to import

    publisher = getattr(pypi_attestations, f"{speaker.kind}Publisher")(**dict(speaker.fields))
    # Attestation.verify would take its trusted root from a cache in the home directory, which outlives the release that
    # filled it and may not be writable; so its few lines are written out here.
    policy = publisher._as_policy()  # noqa: SLF001 - there is no other way from a publisher to its policy
    verifier = _create_verifier()
    try:
        bundle = pypi_attestations.Attestation.model_validate_json(attestation.content).to_bundle()
        _, payload = verifier.verify_dsse(bundle, policy)
    except Exception as fault:  # hostile certificates and log entries fail in every room of four libraries
        return _describe(fault)
    return None if payload == attestation.payload else "another statement was signed"


@functools.cache
def _create_verifier() -> Any:
    from sigstore.models import TrustedRoot  # noqa: PLC0415 - optional, and slow to import
    from sigstore.verify import Verifier  # noqa: PLC0415

    with resources.as_file(resources.files("sigstore._store").joinpath(*_TRUSTED_ROOT)) as path:
        return Verifier(trusted_root=TrustedRoot.from_file(str(path)))


def _encode_provenance(made: Mapping[_Speaker, Sequence[msgspec.Raw]]) -> bytes:
    bundles = [
        {"publisher": {"kind": speaker.kind, **dict(speaker.fields)}, "attestations": attestations}
        for speaker, attestations in made.items()
    ]
    return msgspec.json.encode({"version": 1, "attestation_bundles": bundles}, order="deterministic")


def _describe(fault: Exception) -> str:
    if isinstance(fault, RecursionError):
        return "nested too deeply"
    return str(fault).partition("\n")[0] or type(fault).__name__


def _fault(reason: str) -> Invalid:
    if len(reason) > MAX_REASON:
        half = MAX_REASON // 2
        reason = f"{reason[:half]} … {reason[-half:]}"
    line = "".join(letter if letter.isprintable() else "?" for letter in reason)
    return Invalid(f"Invalid attestations: {line}")

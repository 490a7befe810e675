"""Attestations of an upload become its provenance, or one line that says what is wrong with them."""

import base64
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pypi_attestations import Provenance

from pypiserver_ng.attestations import MAX_ATTESTATIONS, MAX_SIZE, AttestationVerifier, is_available
from pypiserver_ng.errors import Invalid
from pypiserver_ng.filenames import parse_upload
from pypiserver_ng.model import Publisher
from tests.tools.attested import find_attested
from tests.tools.clients import ClientMissingError

ROOT = Path(__file__).parents[1]

GITHUB, GITLAB = "https://token.actions.githubusercontent.com", "https://gitlab.com"
GOOGLE, CIRCLECI = "https://accounts.google.com", "https://oidc.circleci.com"

FILENAME = "acme_core-1.0.tar.gz"
SHA256 = hashlib.sha256(b"acme").hexdigest()
STATEMENT = {
    "_type": "https://in-toto.io/Statement/v1",
    "subject": [{"name": FILENAME, "digest": {"sha256": SHA256}}],
    "predicateType": "https://slsa.dev/provenance/v1",
    "predicate": None,
}


def publisher(issuer: str = GITHUB, /, *projects: str, **claims: str) -> Publisher:
    """One that may speak for all projects, where none are given."""
    return Publisher(issuer, "pypiserver-ng", tuple(claims.items()), projects or ("*",))


ACME = publisher(repository="acme/core", workflow="release.yml")


def encode(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return base64.b64encode(text.encode()).decode()


def build(statement: Any = STATEMENT, **changes: Any) -> dict[str, Any]:
    """One attestation whose structure is sound and whose certificate nobody issued, as an object before JSON."""
    return {
        "version": 1,
        "verification_material": {"certificate": encode("certificate"), "transparency_entries": [{}]},
        "envelope": {"statement": encode(statement), "signature": encode("signature")},
    } | changes


def check(text: str, *publishers: Publisher, filename: str = FILENAME, sha256: str = SHA256) -> bytes | None:
    return AttestationVerifier(publishers).check(text, parse_upload(filename), sha256)


def refuse(text: str, *publishers: Publisher, filename: str = FILENAME, sha256: str = SHA256) -> str:
    """The one line that bad attestations are answered with."""
    with pytest.raises(Invalid) as refused:
        check(text, *publishers, filename=filename, sha256=sha256)
    message = refused.value.message
    assert message.startswith("Invalid attestations: ")
    assert message.isprintable()
    assert len(message) < 400
    return message


# Structure.


def garbage() -> dict[str, str]:
    """By a name: what cannot be the attestations of any file."""
    material, envelope = build()["verification_material"], build()["envelope"]
    objects: dict[str, Any] = {
        "object": build(),
        "null": None,
        "text": "attestation",
        "empty array": [],
        "array of numbers": [1],
        "array of arrays": [[build()]],
        "second is null": [build(), None],
        "too many": [build()] * (MAX_ATTESTATIONS + 1),
        "empty object": [{}],
        "version 2": [build(version=2)],
        "version as text": [build(version="1")],
        "version as fraction": [build(version=1.0)],
        "version as truth": [build(version=True)],
        "huge version": [build(version=10**4000)],
        "no version": [{key: value for key, value in build().items() if key != "version"}],
        "no material": [{key: value for key, value in build().items() if key != "verification_material"}],
        "no envelope": [{key: value for key, value in build().items() if key != "envelope"}],
        "material is a list": [build(verification_material=[])],
        "no certificate": [build(verification_material={"transparency_entries": [{}]})],
        "certificate is null": [build(verification_material=material | {"certificate": None})],
        "certificate is empty": [build(verification_material=material | {"certificate": ""})],
        "certificate is not base64": [build(verification_material=material | {"certificate": "-----BEGIN"})],
        "certificate is not ASCII": [build(verification_material=material | {"certificate": "ÄÖÜß"})],
        "certificate has rests": [build(verification_material=material | {"certificate": "QUJDRA==QUJD"})],
        "no entries": [build(verification_material={"certificate": encode("c")})],
        "entries are empty": [build(verification_material=material | {"transparency_entries": []})],
        "entries are an object": [build(verification_material=material | {"transparency_entries": {}})],
        "entry is a number": [build(verification_material=material | {"transparency_entries": [1]})],
        "envelope is a text": [build(envelope="envelope")],
        "no signature": [build(envelope={"statement": encode(STATEMENT)})],
        "signature is a number": [build(envelope=envelope | {"signature": 1})],
        "signature is not base64": [build(envelope=envelope | {"signature": "*"})],
        "no statement": [build(envelope={"signature": encode("s")})],
        "statement is an object": [build(envelope=envelope | {"statement": STATEMENT})],
        "statement is not base64": [build(envelope=envelope | {"statement": "{}"})],
    }
    # json.dumps refuses to write some of what a caller can send.
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        texts = {name: json.dumps(value) for name, value in objects.items()}
    finally:
        sys.set_int_max_str_digits(limit)
    sound = json.dumps([build()])
    return texts | {
        "nothing": "",
        "not JSON": "attestations",
        "byte order mark": "\ufeff" + sound,
        "cut short": sound[:-1],
        "two arrays": sound + sound,
        "deep array": "[" * 100_000,
        "deep object": '[{"version":' * 100_000,
        "deep unknown key": sound.replace('"version"', '"x": ' + "[" * 100_000 + ', "version"'),
        "deep entry": sound.replace("[{}]", '[{"a":' + "[" * 100_000),
        "not a number": sound.replace("[{}]", '[{"a": NaN}]'),
        "huge number": sound.replace("[{}]", '[{"a": 1e999}]'),
        "lone surrogate": sound.replace("[{}]", '[{"a": "\ud800"}]'),
        "escaped lone surrogate": sound.replace("[{}]", '[{"a": "\\ud800"}]'),
        "too long": sound + " " * MAX_SIZE,
    }


GARBAGE = garbage()


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_refused_whether_or_not_anybody_is_trusted(name: str) -> None:
    """The same line with a publisher and without one."""
    assert refuse(GARBAGE[name]) == refuse(GARBAGE[name], ACME)


@pytest.mark.parametrize(
    ("name", "expected"),
    (
        ("not JSON", "JSON is malformed: invalid character (byte 0)"),
        ("empty array", "Expected `array` of length >= 1"),
        ("version 2", "Invalid enum value 2 - at `$[0].version`"),
        ("no material", "Object missing required field `verification_material` - at `$[0]`"),
        ("certificate is not base64", "the certificate of number 1 is not base64"),
        ("deep entry", "nested too deeply"),
        ("too long", f"longer than {MAX_SIZE} characters"),
    ),
)
def test_the_refusal_says_what_is_wrong(name: str, expected: str) -> None:
    """And where, in a line for the uploader."""
    assert refuse(GARBAGE[name]).removeprefix("Invalid attestations: ") == expected


def bad_statements() -> dict[str, list[dict[str, Any]]]:
    """By a name: sound envelopes of what says nothing about any file."""
    return {
        "statement is not JSON": [build("statement")],
        "statement is not UTF-8": [
            build(envelope=build()["envelope"] | {"statement": base64.b64encode(b'{"\xff":1}').decode()})
        ],
        "statement is a list": [build([STATEMENT])],
        "statement of another type": [build(STATEMENT | {"_type": "https://in-toto.io/Statement/v0.1"})],
        "statement of an unprintable type": [build(STATEMENT | {"_type": "\x1b[2J\u202e"})],
        "statement without a type": [build({key: value for key, value in STATEMENT.items() if key != "_type"})],
        "statement without a subject": [build(STATEMENT | {"subject": []})],
        "subject is a text": [build(STATEMENT | {"subject": FILENAME})],
        "subject without a digest": [build(STATEMENT | {"subject": [{"name": FILENAME}]})],
        "subject with a number": [build(STATEMENT | {"subject": [{"name": 1, "digest": {}}]})],
        "predicate type is null": [build(STATEMENT | {"predicateType": None})],
        "deep statement": [build(json.dumps(STATEMENT).replace("null", "[" * 100_000))],
    }


@pytest.mark.parametrize("name", bad_statements())
def test_what_was_signed_is_read_only_where_somebody_is_trusted(name: str) -> None:
    """An index that claims no support accepts and ignores the field."""
    text = json.dumps(bad_statements()[name])
    assert check(text) is None
    assert "the statement of number 1 is not an in-toto v1 statement: " in refuse(text, ACME)


def test_sound_attestations_are_accepted_and_not_shown_where_nobody_is_trusted() -> None:
    """Without publishers, with those of other projects, and with issuers whose certificates nobody can verify."""
    text = json.dumps([build(), build()])
    assert check(text) is None
    assert check(text, publisher(GITHUB, "acme", "other-*", repository="acme/core", workflow="release.yml")) is None
    assert check(text, publisher("https://issuer.example", repository="acme/core", workflow="release.yml")) is None
    assert check(text, publisher(repository="acme/core")) is None, "a claim that the certificate proves is not named"
    assert check(text, publisher(repository="acme/core", workflow="release.yml", ref="refs/heads/main")) is None, (
        "more is demanded than can be proved"
    )


def test_encoders_may_break_their_lines() -> None:
    """As that of MIME does, after 76 characters."""
    attestation = build()
    statement = base64.encodebytes(json.dumps(STATEMENT).encode()).decode()
    assert "\n" in statement[:-1]
    attestation["envelope"]["statement"] = statement
    assert check(json.dumps([attestation])) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = (
    (),
    ("version",),
    ("verification_material",),
    ("verification_material", "certificate"),
    ("verification_material", "transparency_entries"),
    ("envelope",),
    ("envelope", "statement"),
    ("envelope", "signature"),
)


@given(st.text() | JSON.map(json.dumps))
def test_any_text_is_refused_in_one_line(text: str) -> None:
    """Whatever it is, and never with another failure."""
    refuse(text, ACME)


@given(st.sampled_from(KEYS), JSON)
def test_any_value_in_any_place_is_accepted_or_refused(path: tuple[str, ...], value: Any) -> None:
    """One value of a sound attestation replaced: never another failure than Invalid."""
    attestation: Any = build()
    place = attestation
    for key in path[:-1]:
        place = place[key]
    if path:
        place[path[-1]] = value
    with suppress(Invalid):
        assert check(json.dumps([attestation if path else value])) is None


@given(JSON.map(json.dumps) | st.text(), st.sampled_from(["subject", "predicateType", "predicate", "_type"]), JSON)
def test_any_statement_is_accepted_or_refused(text: str, key: str, value: Any) -> None:
    """Texts of any kind, and sound statements with one value replaced."""
    for statement in (text.encode(errors="replace").decode(), STATEMENT | {key: value}):
        with suppress(Invalid):
            assert check(json.dumps([build(statement)])) is None


# What is said, before who says it.


@pytest.mark.parametrize(
    ("changes", "expected"),
    (
        ({"predicateType": "https://example/v1"}, "number 1 has the predicate type 'https://example/v1', not one of "),
        (
            {"subject": [{"name": "acme_core-1.1.tar.gz", "digest": {"sha256": SHA256}}]},
            "number 1 is of 'acme_core-1.1.tar.gz', not of acme_core-1.0.tar.gz",
        ),
        ({"subject": [{"name": "x" * 9999, "digest": {"sha256": SHA256}}]}, "number 1 is of 'xxx"),
        (
            {"subject": [{"name": "acme_core-" + "0" * 999 + "1.0.tar.gz", "digest": {"sha256": SHA256}}]},
            "number 1 is of",
        ),
        ({"subject": [{"name": "\n.tar.gz", "digest": {"sha256": SHA256}}]}, r"number 1 is of '\n.tar.gz', not of"),
        ({"subject": [{"digest": {"sha256": SHA256}}]}, "number 1 is of None, not of acme_core-1.0.tar.gz"),
        (
            {"subject": [{"name": FILENAME, "digest": {"sha256": SHA256[::-1]}}]},
            "number 1 is of other bytes: its sha256 is not that of acme_core-1.0.tar.gz",
        ),
        ({"subject": [{"name": FILENAME, "digest": {"sha512": SHA256}}]}, "number 1 is of other bytes"),
        ({"subject": STATEMENT["subject"] * 2}, "number 1 has 2 subjects, not one"),  # type: ignore[operator]
    ),
)
def test_a_statement_about_something_else_is_refused(changes: dict[str, Any], expected: str) -> None:
    """Where somebody is trusted to speak for the project."""
    text = json.dumps([build(STATEMENT | changes)])
    assert expected in refuse(text, ACME)
    assert check(text) is None, "nobody is asked whether it is true"


def test_one_attestation_of_each_type() -> None:
    """A second one of the same type is refused, as the public index does."""
    refusal = refuse(json.dumps([build(), build()]), ACME)
    assert "number 2 is a second one with the predicate type https://slsa.dev/provenance/v1" in refusal


def test_other_spellings_of_the_name_are_the_same_distribution() -> None:
    """The subject passes, so that the certificate is what is wrong."""
    for spelling in ("Acme.Core-1.0.0.tar.gz", "acme_core-1.0.zip"):
        subject = [{"name": spelling, "digest": {"sha256": SHA256}}]
        assert "not verified: invalid X.509" in refuse(json.dumps([build(STATEMENT | {"subject": subject})]), ACME)


# Real attestations.

REAL = {
    "pypi_attestations-0.0.19.tar.gz": publisher(repository="trailofbits/pypi-attestations", workflow="release.yml"),
    "gitlab_oidc_project-0.0.3.tar.gz": publisher(
        GITLAB, repository="facutuesca/gitlab-oidc-project", workflow=".gitlab-ci.yml"
    ),
    "gcb_attestation_test-0.0.0.tar.gz": publisher(GOOGLE, email="919436158236-compute@developer.gserviceaccount.com"),
    "circleci_sign_publish_example-0.0.1.dev137-py3-none-any.whl": publisher(
        CIRCLECI,
        project_id="fdd9283f-e619-46af-8f9c-851f7d3e8b2b",
        pipeline_definition_id="8e4f8ab2-8d7c-4827-9f15-de076d6d647f",
        vcs_ref="refs/heads/pypi",
    ),
}
RELEASED = "pypi_attestations-0.0.19.tar.gz"
TRUSTED = REAL[RELEASED]


@pytest.fixture(scope="module")
def attested() -> dict[str, bytes]:
    """Filename to content of real distributions and their attestations."""
    found = find_attested()
    if isinstance(found, ClientMissingError):
        pytest.skip(str(found))
    return found


def read_attestations(attested: dict[str, bytes], filename: str) -> list[dict[str, Any]]:
    """All of one distribution, from the files beside it."""
    names = (f"{filename}.{kind}.attestation" for kind in ("publish", "slsa"))
    found = [json.loads(attested[name]) for name in names if name in attested]
    if found:
        return found
    provenance = json.loads(attested[f"{filename}.provenance"])
    return list(provenance["attestation_bundles"][0]["attestations"])


@pytest.fixture
def check_real(attested: dict[str, bytes]) -> Callable[..., bytes | None]:
    """Checks the attestations of a real distribution; what is not given is right."""

    def run(*publishers: Publisher, filename: str = RELEASED, **changes: Any) -> bytes | None:
        attestations = changes.get("attestations", read_attestations(attested, filename))
        sha256 = changes.get("sha256", hashlib.sha256(attested[filename]).hexdigest())
        return check(json.dumps(attestations), *publishers, filename=changes.get("name", filename), sha256=sha256)

    return run


@pytest.mark.parametrize("filename", REAL)
def test_a_real_attestation_verifies(
    filename: str, attested: dict[str, bytes], check_real: Callable[..., bytes | None]
) -> None:
    """Of each kind of publisher; the answer is a provenance object that names the publisher and holds what was sent."""
    shown = check_real(REAL[filename], filename=filename)
    assert shown is not None
    provenance = Provenance.model_validate_json(shown)
    assert len(provenance.attestation_bundles) == 1
    expected = dict(REAL[filename].claims)
    if "GitLab" in (kind := provenance.attestation_bundles[0].publisher.kind):
        expected["workflow_filepath"] = expected.pop("workflow")
    shown_object = json.loads(shown)
    assert shown_object["version"] == 1
    assert shown_object["attestation_bundles"] == [
        {"publisher": {"kind": kind, **expected}, "attestations": read_attestations(attested, filename)}
    ]
    assert shown == check_real(REAL[filename], filename=filename), "the same bytes each time"
    assert shown == json.dumps(shown_object, separators=(",", ":"), ensure_ascii=False).encode(), "compact"


def test_claims_that_no_certificate_carries_are_not_shown(check_real: Callable[..., bytes | None]) -> None:
    """An environment binds tokens; nobody can read it from an attestation."""
    environment = publisher(**dict(TRUSTED.claims), environment="release")
    assert check_real(environment) == check_real(TRUSTED)


def test_each_publisher_gets_a_bundle_of_its_own(
    attested: dict[str, bytes], check_real: Callable[..., bytes | None]
) -> None:
    """Which of several made it is found out; one that is configured twice is one, and one that made none has none."""
    shown = check_real(ACME, TRUSTED, TRUSTED, REAL["gitlab_oidc_project-0.0.3.tar.gz"])
    assert shown == check_real(TRUSTED)


@pytest.mark.parametrize(
    ("claims", "expected"),
    (
        ({"repository": "acme/pypi-attestations"}, "OIDCSourceRepositoryURI does not match"),
        ({"repository": "TRAILOFBITS/pypi-attestations"}, "OIDCSourceRepositoryURI does not match"),
        ({"workflow": "tests.yml"}, "does not match expected Trusted Publisher (tests.yml"),
        ({"workflow": "release.yml@refs/tags/v0.0.19"}, "does not match expected Trusted Publisher"),
    ),
)
def test_another_publisher_is_refused(
    claims: dict[str, str], expected: str, check_real: Callable[..., bytes | None]
) -> None:
    """With a line that says which of its marks is another."""
    with pytest.raises(Invalid, match=r"^Invalid attestations: number 1 is not verified: ") as refused:
        check_real(publisher(**{**dict(TRUSTED.claims), **claims}))
    assert expected in refused.value.message


@pytest.mark.parametrize("filename", REAL)
def test_nobody_speaks_for_another_issuer(filename: str, check_real: Callable[..., bytes | None]) -> None:
    """An attestation of each kind against the publishers of all others."""
    others = [each for name, each in REAL.items() if name != filename]
    with pytest.raises(Invalid, match=r"is not verified: .*OIDCIssuer"):
        check_real(*others, filename=filename)


def test_a_publisher_of_another_project_is_not_asked(check_real: Callable[..., bytes | None]) -> None:
    """Globs are matched with the normalized name."""
    claims = dict(TRUSTED.claims)
    assert check_real(publisher(GITHUB, "acme-*", **claims)) is None
    assert check_real(publisher(GITHUB, "pypi", **claims)) is None
    assert check_real(publisher(GITHUB, "acme", "pypi-att*", **claims)) is not None


def test_other_bytes_and_other_names_are_refused(check_real: Callable[..., bytes | None]) -> None:
    """A real attestation holds for the distribution that it is of."""
    with pytest.raises(Invalid, match="number 1 is of other bytes"):
        check_real(TRUSTED, sha256=SHA256)
    with pytest.raises(Invalid, match=r"number 1 is of 'pypi_attestations-0\.0\.19\.tar\.gz', not of"):
        check_real(TRUSTED, name="pypi_attestations-0.0.20.tar.gz")


def flip(text: str) -> str:
    """The same base64 text with one bit of its bytes changed, in the middle."""
    raw = bytearray(base64.b64decode(text))
    raw[len(raw) // 2] ^= 1
    return base64.b64encode(raw).decode()


@pytest.mark.parametrize("part", ("signature", "certificate", "log entry", "statement", "proof"))
def test_a_changed_attestation_is_refused(
    part: str, attested: dict[str, bytes], check_real: Callable[..., bytes | None]
) -> None:
    """One bit of each part, and the statement of another file of the same publisher."""
    attestation, other = read_attestations(attested, RELEASED)
    material, envelope = attestation["verification_material"], attestation["envelope"]
    entry = material["transparency_entries"][0]
    match part:
        case "signature":
            envelope["signature"] = flip(envelope["signature"])
        case "certificate":
            material["certificate"] = flip(material["certificate"])
        case "log entry":
            entry["canonicalizedBody"] = flip(entry["canonicalizedBody"])
        case "statement":
            envelope["statement"] = other["envelope"]["statement"]
        case "proof":
            entry["inclusionProof"]["rootHash"] = flip(entry["inclusionProof"]["rootHash"])
    with pytest.raises(Invalid, match=r"^Invalid attestations: number 1 is not verified: ."):
        check_real(TRUSTED, attestations=[attestation])


def test_one_bad_attestation_spoils_all(attested: dict[str, bytes], check_real: Callable[..., bytes | None]) -> None:
    """The number says which."""
    good, bad = read_attestations(attested, RELEASED)
    bad["envelope"]["signature"] = flip(bad["envelope"]["signature"])
    assert check_real(TRUSTED, attestations=[good]) is not None
    with pytest.raises(Invalid, match="number 2 is not verified"):
        check_real(TRUSTED, attestations=[good, bad])


def test_keys_that_nobody_signed_are_not_shown(
    attested: dict[str, bytes], check_real: Callable[..., bytes | None]
) -> None:
    """Signers may add keys; they are accepted."""
    attestations = read_attestations(attested, RELEASED)
    assert check_real(TRUSTED, attestations=[each | {"note": "x"} for each in attestations]) == check_real(TRUSTED)


@given(
    path=st.sampled_from(("inclusionProof", "logId", "kindVersion", "canonicalizedBody", "integratedTime", "logIndex")),
    value=JSON,
)
def test_any_log_entry_is_verified_or_refused(path: str, value: Any) -> None:
    """Hostile entries end in Invalid, wherever the libraries stumble over them."""
    found = find_attested()
    if isinstance(found, ClientMissingError):
        pytest.skip(str(found))
    attestation = read_attestations(found, RELEASED)[0]
    attestation["verification_material"]["transparency_entries"][0][path] = value
    sha256 = hashlib.sha256(found[RELEASED]).hexdigest()
    with suppress(Invalid):
        check(json.dumps([attestation]), TRUSTED, filename=RELEASED, sha256=sha256)


# What is imported, asked and written.


def run_apart(script: str, home: Path, **files: str) -> str:
    """What a script prints in an interpreter of its own, which may not leave anything in its home directory."""
    home.mkdir()
    for name, text in files.items():
        (home.parent / name).write_text(text)
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=home.parent,
        env={"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert list(home.iterdir()) == []
    return done.stdout


ROOM = """
import json, sys
from pathlib import Path
from pypiserver_ng.attestations import AttestationVerifier, is_available
from pypiserver_ng.errors import Invalid
from pypiserver_ng.filenames import parse_upload
from pypiserver_ng.model import Publisher

def verifier(issuer, claims):
    return AttestationVerifier([Publisher(issuer, "pypiserver-ng", tuple(claims.items()), ("*",))])

acme = verifier("https://token.actions.githubusercontent.com", {"repository": "acme/core", "workflow": "release.yml"})
"""


def test_garbage_is_refused_without_importing_the_extra(tmp_path: Path) -> None:
    """Its import takes a second, which no stranger can make the server spend."""
    script = f"""{ROOM}
for name, text in json.loads(Path("garbage").read_text()).items():
    try:
        acme.check(text, parse_upload({FILENAME!r}), {SHA256!r})
    except Invalid:
        continue
    print("accepted:", name)
assert AttestationVerifier([]).check(Path("sound").read_text(), parse_upload({FILENAME!r}), {SHA256!r}) is None
assert is_available()
print([name for name in ("pypi_attestations", "sigstore", "pydantic", "cryptography") if name in sys.modules])
"""
    sound = json.dumps([build()])
    assert run_apart(script, tmp_path / "home", garbage=json.dumps(GARBAGE), sound=sound) == "[]\n"


def test_without_the_extra_nothing_is_verified_and_nothing_is_shown(tmp_path: Path) -> None:
    """Sound attestations are accepted, garbage is refused."""
    script = f"""{ROOM}
sys.modules["pypi_attestations"] = None  # as if it were not installed
print(is_available(), acme.check(Path("sound").read_text(), parse_upload({FILENAME!r}), {SHA256!r}))
try:
    acme.check("[]", parse_upload({FILENAME!r}), {SHA256!r})
except Invalid as fault:
    print(fault.message)
"""
    printed = run_apart(script, tmp_path / "home", sound=json.dumps([build()]))
    assert printed == "False None\nInvalid attestations: Expected `array` of length >= 1\n"
    assert is_available()


def test_many_threads_verify_at_once_without_the_network(attested: dict[str, bytes], tmp_path: Path) -> None:
    """From the first check on: no address is looked up or connected to, and nothing is left in the home directory."""
    sha256 = hashlib.sha256(attested[RELEASED]).hexdigest()
    script = f"""{ROOM}
from concurrent.futures import ThreadPoolExecutor

def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        raise RuntimeError(f"{{event}} {{arguments}}")

sys.addaudithook(refuse)
trusted = verifier({TRUSTED.issuer!r}, {dict(TRUSTED.claims)!r})
text = Path("sound").read_text()
with ThreadPoolExecutor(8) as threads:
    runs = [threads.submit(trusted.check, text, parse_upload({RELEASED!r}), {sha256!r}) for _ in range(16)]
print(len({{run.result() for run in runs}}), b'"kind":"GitHub"' in runs[0].result())
"""
    sound = json.dumps(read_attestations(attested, RELEASED))
    assert run_apart(script, tmp_path / "home", sound=sound) == "1 True\n"


def test_threads_share_one_verifier(attested: dict[str, bytes]) -> None:
    """Good and bad uploads at the same time do not mix."""
    verifier = AttestationVerifier([TRUSTED])
    parsed, sha256 = parse_upload(RELEASED), hashlib.sha256(attested[RELEASED]).hexdigest()
    good = read_attestations(attested, RELEASED)
    bad = [good[0] | {"envelope": good[0]["envelope"] | {"signature": flip(good[0]["envelope"]["signature"])}}]

    def run(number: int) -> bool:
        with suppress(Invalid):
            return verifier.check(json.dumps(bad if number % 2 else good), parsed, sha256) is not None
        return False

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(run, range(32))) == [True, False] * 16

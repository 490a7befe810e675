"""The words of the house as frozen values. No behaviour beyond sort keys, no I/O, no HTTP."""

import re
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NewType

import msgspec
from packaging.specifiers import SpecifierSet

#: A project name with runs of ``-``, ``_`` and ``.`` as one ``-``, in lower case (PEP 503).
NormalizedName = NewType("NormalizedName", str)

_SEPARATORS = re.compile(r"[-_.]+")
#: The name format of the core metadata specification, ASCII only, anchored at both ends.
_NAME = re.compile(r"\A[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?\Z")


def is_project_name(name: str) -> bool:
    """Whether the text is a project name by the core metadata specification (at most 255 characters)."""
    return len(name) <= 255 and _NAME.match(name) is not None


def normalize_name(name: str) -> NormalizedName:
    """PEP 503: "runs of the characters ., -, or _ replaced with a single - character", in lower case."""
    return NormalizedName(_SEPARATORS.sub("-", name).lower())


class Kind(StrEnum):
    """What sort of distribution a filename announces."""

    WHEEL = "bdist_wheel"
    SDIST = "sdist"
    EGG = "bdist_egg"
    INSTALLER = "bdist_wininst"
    SIGNATURE = "signature"


class Status(StrEnum):
    """The status markers of a project (PEP 792)."""

    ACTIVE = "active"
    ARCHIVED = "archived"
    DEPRECATED = "deprecated"
    QUARANTINED = "quarantined"

    @property
    def takes_uploads(self) -> bool:
        """PEP 792 forbids uploads to archived and quarantined projects."""
        return self in {Status.ACTIVE, Status.DEPRECATED}


class Action(StrEnum):
    """What `--authenticate` can ask credentials for."""

    UPDATE = "update"
    DOWNLOAD = "download"
    LIST = "list"


@dataclass(frozen=True, slots=True)
class ParsedFilename:
    """What a distribution filename says. `version` is empty where the name has none."""

    filename: str
    display_name: str
    name: NormalizedName
    version: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Digests:
    """Lower-case hex digests of one file's bytes."""

    sha256: str
    md5: str
    blake2b_256: str


@dataclass(frozen=True, slots=True)
class File:
    """One distribution file that is here, whole, and known by its hash."""

    id: int
    root: str
    #: Below its package directory, with ``/``; the URL is ``/packages/<path>``.
    path: str
    filename: str
    project: NormalizedName
    display_name: str
    version: str
    kind: Kind
    size: int
    mtime_ns: int
    digests: Digests
    upload_time: datetime
    requires_python: str | None = None
    summary: str | None = None
    #: sha256 of the core metadata where it could be read from a wheel, else None.
    metadata_sha256: str | None = None
    yanked: bool = False
    yanked_reason: str | None = None
    #: Whether ``<path>.asc`` is here too.
    has_signature: bool = False
    #: Whether its upload brought attestations that were verified (PEP 740).
    has_provenance: bool = False

    @property
    def sha256(self) -> str:
        return self.digests.sha256


#: Stands for the sha256 in the path of a file whose upstream gives none.
FIRST_SEEN = "first-seen"


class UpstreamFile(msgspec.Struct, frozen=True, gc=False, array_like=True, omit_defaults=True):
    """One distribution file as an upstream lists it; its bytes may be here or not.

    A struct, because a page may hold ten thousand of them and is read from the disk as a whole.
    """

    filename: str
    project: NormalizedName
    display_name: str
    version: str
    kind: Kind
    #: Where its bytes are: an absolute http(s) URL without credentials and fragment, perhaps on another host.
    url: str
    sha256: str | None = None
    #: Where the upstream gives no sha256: the strongest other digest as ``algorithm=hex``.
    other_digest: str | None = None
    #: Bytes.
    size: int | None = None
    #: The upstream's own word, in UTC; never the time at which it was fetched.
    upload_time: datetime | None = None
    requires_python: str | None = None
    #: sha256 of its core metadata; empty where the upstream has it and gives no hash, None where it has none.
    metadata_sha256: str | None = None
    yanked: bool = False
    yanked_reason: str | None = None
    has_signature: bool = False
    #: Absolute URL of the provenance object at the upstream.
    provenance_url: str | None = None

    @property
    def path(self) -> str:
        """Below ``/packages/``: what is behind it never changes, with the hash in it or without."""
        return f"-/{self.sha256 or FIRST_SEEN}/{self.filename}"


def is_mirror_path(path: str) -> bool:
    """Whether a path below ``/packages/`` names an upstream's file, as `UpstreamFile.path` writes it."""
    parts = path.split("/")
    if len(parts) != 3 or parts[0] != "-":
        return False
    return parts[1] == FIRST_SEEN or (len(parts[1]) == 64 and all(char in "0123456789abcdef" for char in parts[1]))


class UpstreamPage(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What one upstream says of a project, in the order of its page."""

    files: tuple[UpstreamFile, ...]
    status: Status = Status.ACTIVE
    status_reason: str | None = None


#: What a page can list.
Listed = File | UpstreamFile


@dataclass(frozen=True, slots=True)
class Project:
    """A project as it is offered; files sorted by version, then filename. A quarantined one offers none."""

    name: NormalizedName
    display_name: str
    serial: int
    files: tuple[Listed, ...]
    status: Status = Status.ACTIVE
    status_reason: str | None = None
    #: Files that are here but not whole yet (someone is copying them).
    pending: int = 0


class Right(StrEnum):
    """What somebody may do with a project."""

    LIST = "list"
    DOWNLOAD = "download"
    UPLOAD = "upload"
    #: To upload the first file of a new project.
    CREATE = "create"
    YANK = "yank"
    DELETE = "delete"

    @property
    def action(self) -> Action:
        """The action of `--authenticate` that it belongs to."""
        return {Right.LIST: Action.LIST, Right.DOWNLOAD: Action.DOWNLOAD}.get(self, Action.UPDATE)


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer of rights that is no person. Its secret is known to its owner alone."""

    #: Public, in the token's text; what it is found by.
    id: str
    #: What people call it, unique among those that are kept; with a colon, what was made for no person.
    name: str
    #: sha256 of the secret part.
    hash: bytes = field(repr=False)
    #: Patterns of normalized names.
    projects: tuple[str, ...]
    actions: frozenset[Action]
    created: datetime
    #: From this moment on it is refused; None = never.
    expires: datetime | None = None
    #: Later versions than this one are not for its owner.
    until_version: str | None = None

    @property
    def is_of_nobody(self) -> bool:
        """Whether no person made it: such names are not chosen, and many may have one."""
        return ":" in self.name

    @property
    def user(self) -> str:
        """Who acts with it, as it is written down."""
        return self.name if self.is_of_nobody else f"token:{self.name}"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks. `user` is None for a caller without credentials."""

    #: As it is written down: ``alice``, ``token:deploy``.
    user: str | None = None
    token: Token | None = None
    #: From where, as far as that is known; who is who does not depend on it.
    address: str | None = field(default=None, compare=False)


ANONYMOUS = Identity()


@dataclass(frozen=True, slots=True)
class Sight:
    """What of the index one caller may see, who may not see all."""

    #: Equal for callers who see the same.
    view: Hashable
    #: Whether a project may be listed.
    shows: Callable[[NormalizedName], bool]
    #: Whether a release of such a project may be listed; None = all.
    reaches: Callable[[str], bool] | None = None


#: In the place of a user's name: every caller, with or without credentials.
ANYONE = "anyone"


@dataclass(frozen=True, slots=True)
class Grant:
    """One `[[access]]` entry: who may do what with which projects."""

    #: How people find it, such as ``[[access]] number 2 (acme-*)``.
    label: str
    #: ``alice``, ``token:deploy``, ``anyone``; groups are spelled out.
    who: frozenset[str]
    #: Patterns of normalized names.
    projects: tuple[str, ...]
    may: frozenset[Right]


@dataclass(frozen=True, slots=True)
class Body:
    """One representation's bytes and the header lists that go with them, ready to send."""

    content: bytes
    etag: bytes
    #: Complete ASGI header list of the 200 answer, and of the 304.
    headers: list[tuple[bytes, bytes]]
    not_modified: list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Another index answers for the project; `url` holds no credentials and ends with ``/``."""

    url: str


@dataclass(frozen=True, slots=True)
class Upload:
    """What an upload form says, next to the bytes that came with it. Absent fields are None."""

    filename: str
    name: str | None = None
    version: str | None = None
    filetype: str | None = None
    #: Hex digests by their form fields' names: sha256_digest, md5_digest, blake2_256_digest.
    digests: dict[str, str] = field(default_factory=dict)
    #: JSON array of attestations (PEP 740), not checked yet.
    attestations: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """One project that a search found, in its newest version."""

    name: NormalizedName
    display_name: str
    version: str
    summary: str | None
    upload_time: datetime
    yanked: bool = False


@dataclass(frozen=True, slots=True)
class Publisher:
    """Whom to believe about some projects: an issuer of identities, and the claims that one of its tokens must have."""

    issuer: str
    #: Whom the issuer's tokens must be made out to.
    audience: str
    #: Names and values as they are configured.
    claims: tuple[tuple[str, str], ...]
    #: Patterns of normalized names.
    projects: tuple[str, ...]


class Mode(StrEnum):
    """How projects that are not local are answered for."""

    REDIRECT = "redirect"
    CACHE = "cache"


class OnError(StrEnum):
    """What a failing upstream means for the next one."""

    NEXT = "next"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class UpstreamSettings:
    """One upstream as it is configured."""

    name: str
    #: Ends with ``/``; may hold credentials, which never leave the server but towards that host.
    url: str = field(repr=False)
    on_error: OnError = OnError.NEXT


@dataclass(frozen=True, slots=True)
class Releases:
    """Some releases of some projects, as a rule names them: ``numpy==2.4.1``, ``leftpad<2``, ``acme-*``."""

    #: As its owner wrote it.
    text: str
    #: Pattern of normalized names.
    projects: str
    #: None = every version.
    specifier: SpecifierSet | None = None


@dataclass(frozen=True, slots=True)
class Exemption:
    """Releases that a cooldown and a freeze let through."""

    releases: Releases
    #: From this moment on it does not hold any more; None = it holds for ever.
    until: datetime | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """One `[[policy]]` entry. What it does not say is None: then the flags say it."""

    #: How people find it, such as ``[[policy]] number 2 (acme-*)``.
    label: str
    #: Patterns of normalized names.
    projects: tuple[str, ...]
    #: Names of upstreams, in order; empty = never upstream.
    upstreams: tuple[str, ...] | None = None
    mode: Mode | None = None
    merge: bool | None = None
    #: Seconds; 0 = off.
    cooldown: int | None = None
    #: Nothing that came later is offered.
    freeze: datetime | None = None
    #: Seconds that an upstream's page is taken for fresh.
    max_age: int | None = None
    exempt: tuple[Exemption, ...] = ()
    #: Nothing else is offered.
    allow: tuple[Releases, ...] | None = None
    deny: tuple[Releases, ...] = ()

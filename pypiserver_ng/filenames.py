"""What a distribution filename says: name, version and kind.

Strict for uploads (wheels by the binary distribution format, sdists by PEP 625), lenient for files that
already lie in a served directory. Takes text and returns values; knows no file, no archive and no metadata.

`packaging` accepts path separators, newlines and letters outside ASCII in filenames, so nothing here trusts its
filename parsers alone: the canonical name is rebuilt from the parts and has to equal what was given.
"""

import functools
import re
from collections.abc import Iterable

from packaging.utils import InvalidWheelFilename, canonicalize_version, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from pypiserver_ng.errors import Invalid
from pypiserver_ng.model import Kind, ParsedFilename, is_project_name, normalize_name

#: Longest filename in bytes, that of the usual file systems.
MAX_LENGTH = 255

_PRINTABLE = re.compile(r"\A[!-~]+\Z")
_BUILD = re.compile(r"\A[0-9][A-Za-z0-9_.]*\Z")
#: A compressed tag set: "tags joined by `.`".
_TAGS = re.compile(r"\A[A-Za-z0-9_]+(?:\.[A-Za-z0-9_]+)*\Z")

# ASCII rules throughout, or the long s would end in `.msi` and the Kelvin sign begin a name.
_LENIENT = re.ASCII | re.IGNORECASE
_ARCHIVE = re.compile(r"\.(?:zip|tar\.gz|tgz|tar\.bz2|tar\.xz)\Z", _LENIENT)
_EGG = re.compile(r"(?:-py\d(?:\.\d+)?(?:-.+)?)?\.egg\Z", _LENIENT)
_INSTALLER = re.compile(r"(?:\.win(?:32|-[a-z0-9]+)-py\d\.\d+|-py\d\.\d+-.+)\.(?:exe|msi|rpm|deb|dmg)\Z", _LENIENT)
#: The platform that `bdist_dumb` and its kin append to the version.
_PLATFORM = re.compile(r"[.-](?:cp\d|py\d|linux|macosx|win32|win-|cygwin|sunos|solaris|irix|aix).*\Z", _LENIENT)
_NUMBER = re.compile(r"-(?=[0-9])")
_RELEASE = re.compile(r"-(?=[0-9]+[.!][0-9])")
_V_NUMBER = re.compile(r"-(?=[vV][0-9])")

_LOWEST = Version("0")


def canonical_version(text: str) -> str | None:
    """The PEP 440 spelling of a version, or None where the text is not one.

    ``_`` is read as ``-``, as wheels and eggs escape it.
    """
    # No filename holds a longer one, and strangers ask for any.
    return _spell_version(text) if len(text) <= MAX_LENGTH else None


# A directory of a hundred thousand files has few different ones.
@functools.lru_cache(maxsize=8192)
def _spell_version(text: str) -> str | None:
    for spelling in (text, text.replace("_", "-")):
        try:
            return str(Version(spelling))
        except ValueError:
            continue
    return None


@functools.lru_cache(maxsize=8192)
def _read_version(text: str) -> Version | None:
    # No filename holds a longer one, and strangers ask for any.
    if len(text) > MAX_LENGTH:
        return None
    try:
        return Version(text)
    except ValueError:
        return None


def sort_key(version: str) -> tuple[bool, Version, str]:
    """Orders version texts as PEP 440 does; what PEP 440 cannot read comes first, by its text."""
    read = _read_version(version)
    return read is not None, read or _LOWEST, version


def is_same_version(one: str, other: str) -> bool:
    """Whether two texts are the same version: by PEP 440 where it can read both, else letter by letter."""
    read = _read_version(one)
    return one == other or (read is not None and read == _read_version(other))


def is_until(version: str, last: str) -> bool:
    """Whether a version is `last` or an earlier one by PEP 440, builds of it included; no where that cannot be told."""
    try:
        return Version(Version(version).public) <= Version(last)
    except InvalidVersion:
        return False


def release_key(version: str) -> str:
    """One text for all spellings of a version, so that 1 and 1.0 are one release."""
    return canonicalize_version(version) if _read_version(version) else version


def newest_version(versions: Iterable[str]) -> str:
    """The newest final version, or the newest at all; `versions` is not empty."""
    ordered = sorted(versions, key=sort_key, reverse=True)
    return next((text for text in ordered if _is_final(text)), ordered[0])


def _is_final(text: str) -> bool:
    readable, version, _ = sort_key(text)
    return readable and not version.is_prerelease


def expected_sdist(name: str, version: str, suffix: str = ".tar.gz") -> str:
    """The filename that PEP 625 gives an sdist: `version` has to be canonical already."""
    return f"{normalize_name(name).replace('-', '_')}-{version}{suffix}"


def parse_upload(filename: str) -> ParsedFilename:
    """Read the name of a file that someone sends: a wheel (``.whl``) or an sdist (``.tar.gz``, ``.zip``).

    Raises Invalid with one line that says what is wrong and, where it can be known, the right name.
    """
    if len(filename) > MAX_LENGTH:
        raise Invalid(f"The filename is longer than {MAX_LENGTH} bytes")
    if not _PRINTABLE.match(filename):
        raise Invalid("The filename may hold printable ASCII characters without spaces only")
    if "/" in filename or "\\" in filename or filename.startswith("."):
        raise Invalid("The filename may not hold a path separator nor begin with a dot")
    if filename.endswith(".whl"):
        return _parse_upload_wheel(filename)
    for suffix in (".tar.gz", ".zip"):
        if filename.endswith(suffix):
            return _parse_upload_sdist(filename, suffix)
    raise Invalid(f"{filename} is neither a wheel (.whl) nor an sdist (.tar.gz, .zip)")


def _parse_upload_wheel(filename: str) -> ParsedFilename:
    """``{distribution}-{version}(-{build tag})?-{python tag}-{abi tag}-{platform tag}.whl``.

    Upper case and dots in the name are taken, since tools that are still in use leave them there.
    """
    parts = filename.removesuffix(".whl").split("-")
    if len(parts) not in {5, 6}:
        raise Invalid(f"{filename} is not a wheel's name: it must be name-version(-build)-python-abi-platform.whl")
    name, version, *build, python, abi, platform = parts
    if not is_project_name(name):
        raise Invalid(f"{filename} does not begin with a valid project name")
    canonical = canonical_version(version)
    if canonical is None:
        raise Invalid(f"{filename} is not a wheel's name: {version} is not a version by PEP 440")
    if build and not _BUILD.match(build[0]):
        raise Invalid(f"{filename} is not a wheel's name: {build[0]} is not a build tag")
    if not all(_TAGS.match(tags) for tags in (python, abi, platform)):
        raise Invalid(f"{filename} is not a wheel's name: {python}-{abi}-{platform} are not tags")
    expected = "-".join((re.sub("_{2,}", "_", name), canonical, *build, python, abi, platform)) + ".whl"
    if filename != expected:
        raise Invalid(f"{filename} is not the name of this wheel: it must be {expected}")
    try:
        parse_wheel_filename(filename)
    except (InvalidWheelFilename, ValueError) as error:
        raise Invalid(f"{filename} is not a wheel's name that installers can read") from error
    return ParsedFilename(filename, name, normalize_name(name), canonical, Kind.WHEEL)


def _parse_upload_sdist(filename: str, suffix: str) -> ParsedFilename:
    """PEP 625: "The name of an sdist should be {distribution}-{version}.tar.gz", both parts normalized."""
    name, version = _split(filename.removesuffix(suffix))
    if not is_project_name(name):
        raise Invalid(f"{filename} does not begin with a valid project name")
    if not version:
        raise Invalid(f"{filename} has no version: an sdist is called {expected_sdist(name, '1.0', suffix)}")
    canonical = canonical_version(version)
    if canonical is None:
        raise Invalid(f"{filename} is not an sdist's name: {version} is not a version by PEP 440")
    expected = expected_sdist(name, canonical, suffix)
    if filename != expected:
        raise Invalid(f"{filename} is not the name of this sdist: it must be {expected}")
    return ParsedFilename(filename, name, normalize_name(name), canonical, Kind.SDIST)


def parse_found(filename: str) -> ParsedFilename | None:
    """Read the name of a file that lies in a served directory; None where it is not a distribution.

    Takes what pypiserver takes. The version is in its PEP 440 spelling where it has one, otherwise as it stands
    in the filename, and empty where the filename has none. A signature has the name and version of the file it signs.
    """
    if (
        len(filename) > MAX_LENGTH
        or not filename.isprintable()
        or filename.startswith(".")
        or "/" in filename
        or "\\" in filename
    ):
        return None
    if filename[-4:].lower() == ".asc":
        signed = parse_found(filename[:-4])
        if signed is None or signed.kind is Kind.SIGNATURE:
            return None
        return ParsedFilename(filename, signed.display_name, signed.name, signed.version, Kind.SIGNATURE)
    split = _split_wheel(filename) if filename.endswith(".whl") else _split_legacy(filename)
    if split is None:
        return None
    kind, name, version = split
    if not is_project_name(name):
        return None
    return ParsedFilename(filename, name, normalize_name(name), canonical_version(version) or version, kind)


def _split_wheel(filename: str) -> tuple[Kind, str, str] | None:
    head, *tags = filename.removesuffix(".whl").rsplit("-", 3)
    if len(tags) != 3 or not all(tags):
        return None
    parts = head.split("-")
    if len(parts) == 3 and _BUILD.match(parts[2]) and parts[1][:1].isdigit():
        return Kind.WHEEL, parts[0], parts[1]
    name, version = _split(head)
    return (Kind.WHEEL, name, version) if version else None


def _split_legacy(filename: str) -> tuple[Kind, str, str] | None:
    for kind, suffix in ((Kind.INSTALLER, _INSTALLER), (Kind.EGG, _EGG), (Kind.SDIST, _ARCHIVE)):
        if found := suffix.search(filename):
            name, version = _split(filename[: found.start()])
            return kind, name, _PLATFORM.sub("", version)
    return None


def _split(stem: str) -> tuple[str, str]:
    """Split ``name-version``, where both parts may hold dashes: nothing in the old names says where to cut.

    The first part that begins like ``1.0`` or ``1!0`` begins the version. Without one, the version is the shortest
    tail that PEP 440 can read (``foo-2-1`` is release 1 of ``foo-2``), else what follows the first dash before
    a digit (``foo-2x4``) or before ``v`` and a digit (``foo-v2``). A stem with none of these has no version.
    """
    if release := _RELEASE.search(stem):
        return stem[: release.start()], stem[release.end() :]
    numbers = list(_NUMBER.finditer(stem))
    for number in reversed(numbers):
        if canonical_version(stem[number.end() :]):
            return stem[: number.start()], stem[number.end() :]
    first = numbers[0] if numbers else _V_NUMBER.search(stem)
    return (stem[: first.start()], stem[first.end() :]) if first else (stem, "")

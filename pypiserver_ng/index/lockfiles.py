"""Lock files: which files they name, by hash. Knows `uv.lock` and `pylock.toml` (PEP 751); asks nobody. Pure.

A URL in a lock file says nothing here: what counts is the project, the filename and the hash.
"""

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.markers import InvalidMarker, Marker
from packaging.pylock import Package, Pylock, PylockValidationError, is_valid_pylock_path
from packaging.specifiers import SpecifierSet
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from pypiserver_ng.errors import Invalid
from pypiserver_ng.filenames import parse_found
from pypiserver_ng.index.targets import Target
from pypiserver_ng.model import NormalizedName, is_project_name, normalize_name

_OTHER_LOCKS = {"poetry.lock", "pdm.lock", "pipfile.lock"}
#: One comparison of a marker, in the form that its text has.
_COMPARISON = re.compile(r"""(\w+|"[^"]*"|'[^']*') (<=|>=|<|>|!=|===?|~=|not in|in) (\w+|"[^"]*"|'[^']*')""")
_ALWAYS = 'python_version != "0"'


@dataclass(frozen=True, slots=True)
class Wanted:
    """One file that is to be brought."""

    project: NormalizedName
    filename: str
    #: Hex digests that its bytes must have, by hashlib's names.
    hashes: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Selection:
    """What is to be brought, and what is named and cannot be: one line each."""

    wanted: tuple[Wanted, ...]
    left_out: tuple[str, ...] = ()


def read_lock(filename: str, content: bytes, targets: Sequence[Target]) -> Selection | None:
    """What a lock file names for the targets; None where the file is no lock file. Raises Invalid."""
    name = Path(filename).name.lower()
    if name in _OTHER_LOCKS:
        raise Invalid(f"{filename} is a lock file that is not read here: export it as pylock.toml or requirements.txt")
    is_named = name == "uv.lock" or is_valid_pylock_path(Path(name))
    try:
        data = tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as fault:
        if is_named:
            raise Invalid(f"{filename} is not valid TOML: {fault}") from None
        return None
    if "lock-version" in data:
        packages = _read_pylock(filename, data)
    elif isinstance(data.get("version"), int) and isinstance(data.get("package", []), list):
        packages = [_read_uv(filename, entry) for entry in data.get("package", [])]
    elif is_named or data:
        raise Invalid(f"{filename} is neither uv.lock nor pylock.toml nor a requirements file")
    else:
        return None
    return _select(packages, targets)


@dataclass(frozen=True, slots=True)
class _Locked:
    """One package of a lock file, whichever its format."""

    title: str
    wheels: tuple[Wanted, ...] = ()
    sdist: Wanted | None = None
    #: Where it comes from, if that is no index.
    elsewhere: str | None = None
    requires: SpecifierSet | None = None
    #: One of them must hold, where there are any.
    markers: tuple[Marker, ...] = ()
    #: Of the whole lock file: what markers may ask for.
    choices: Mapping[str, Any] = field(default_factory=dict)

    def fits(self, target: Target) -> bool:
        if self.requires is not None and target.python is not None and not self.requires.contains(target.python):
            return False
        return not self.markers or any(_holds(marker, target, self.choices) for marker in self.markers)


def _select(packages: Iterable[_Locked], targets: Sequence[Target]) -> Selection:
    wanted: dict[Wanted, None] = {}
    left_out: list[str] = []
    for package in packages:
        if package.elsewhere:
            left_out.append(f"{package.title}: it comes from {package.elsewhere}, not from an index")
            continue
        for target in targets:
            if not package.fits(target):
                continue
            fitting = [wheel for wheel in package.wheels if target.fits(parse_wheel_filename(wheel.filename)[3])]
            if not fitting and package.sdist:
                fitting = [package.sdist]
            if not fitting:
                left_out.append(f"{package.title}: no wheel of it fits, and it has no sdist")
            wanted |= dict.fromkeys(fitting)
    return Selection(tuple(wanted), tuple(dict.fromkeys(left_out)))


def _holds(marker: Marker, target: Target, choices: Mapping[str, Any]) -> bool:
    """Where the target does not say enough to know, it does.

    Markers have no "not", so a comparison that nobody can decide is one that holds.
    """
    known = {**target.environment(), **choices}

    def settle(comparison: re.Match[str]) -> str:
        names = [side for side in comparison.group(1, 3) if side[0] not in "\"'"]
        return comparison[0] if all(name in known for name in names) else _ALWAYS

    return Marker(_COMPARISON.sub(settle, str(marker))).evaluate(known, context="lock_file")


# pylock.toml


def _read_pylock(filename: str, data: Mapping[str, Any]) -> list[_Locked]:
    try:
        lock = Pylock.from_dict(data)
        choices = {
            "extras": frozenset(lock.extras or ()),
            "dependency_groups": frozenset([*(lock.dependency_groups or ()), *(lock.default_groups or ())]),
        }
        return [_read_package(package, choices) for package in lock.packages]
    except PylockValidationError as fault:
        raise Invalid(f"{filename} is not a pylock.toml that can be read: {fault}") from None


def _read_package(package: Package, choices: Mapping[str, Any]) -> _Locked:
    name = normalize_name(package.name)
    title = f"{name} {package.version}" if package.version else name
    kinds = {"a repository": package.vcs, "a directory": package.directory, "an archive": package.archive}
    if elsewhere := next((words for words, value in kinds.items() if value is not None), None):
        return _Locked(title, elsewhere=elsewhere)
    wheels = [_want(name, wheel.filename, wheel.hashes) for wheel in package.wheels or ()]
    sdist = _want(name, package.sdist.filename, package.sdist.hashes) if package.sdist else None
    markers = (package.marker,) if package.marker else ()
    return _Locked(
        title, tuple(filter(None, wheels)), sdist, requires=package.requires_python, markers=markers, choices=choices
    )


# uv.lock


def _read_uv(filename: str, entry: Any) -> _Locked:
    name = entry.get("name") if isinstance(entry, dict) else None
    if not isinstance(name, str) or not is_project_name(name):
        raise Invalid(f"{filename} is not a uv.lock that can be read: a package in it has no name")
    title = f"{normalize_name(name)} {entry['version']}" if entry.get("version") else normalize_name(name)
    source = entry.get("source")
    if not isinstance(source, dict) or "registry" not in source:
        kind = next(iter(source), "nowhere") if isinstance(source, dict) else "nowhere"
        return _Locked(title, elsewhere=f"{kind} {source[kind]!r}" if isinstance(source, dict) and source else kind)
    wheels = [found for wheel in _list(entry, "wheels") if (found := _read_uv_file(name, wheel))]
    sdist = _read_uv_file(name, entry["sdist"]) if "sdist" in entry else None
    return _Locked(title, tuple(wheels), sdist, markers=tuple(_read_markers(filename, title, entry)))


def _read_markers(filename: str, title: str, entry: Mapping[str, Any]) -> Iterator[Marker]:
    """Where a package is locked in several versions: what each is for."""
    for text in _list(entry, "resolution-markers"):
        try:
            yield Marker(str(text))
        except InvalidMarker:
            raise Invalid(f"{filename} is not a uv.lock that can be read: {title} has a marker that is none") from None


def _list(entry: Mapping[str, Any], key: str) -> Iterator[Any]:
    value = entry.get(key, [])
    yield from value if isinstance(value, list) else []


def _read_uv_file(name: str, file: Any) -> Wanted | None:
    if not isinstance(file, dict):
        return None
    where = next((file[key] for key in ("filename", "url", "path") if isinstance(file.get(key), str)), "")
    filename = unquote(urlsplit(where).path).rpartition("/")[2]
    algorithm, _, digest = str(file.get("hash", "")).partition(":")
    return _want(normalize_name(name), filename, {algorithm: digest} if digest else {})


def _want(name: NormalizedName, filename: str, hashes: Mapping[str, str]) -> Wanted | None:
    """None for what no index could have under this name."""
    parsed = parse_found(filename)
    if parsed is None or parsed.name != name:
        return None
    if filename.endswith(".whl"):
        try:
            parse_wheel_filename(filename)
        except InvalidWheelFilename:
            return None
    return Wanted(name, filename, {algorithm.lower(): digest.lower() for algorithm, digest in hashes.items()})

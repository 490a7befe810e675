"""The machines that files are brought for: their tags and their marker environment. Pure.

A platform is named as wheels name it; what is older and runs there too is named with it.
"""

import functools
import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from packaging import tags
from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from pypiserver_ng.errors import Invalid

_PLATFORM = re.compile(
    r"\A(?:(?P<libc>manylinux|musllinux)_(?P<major>\d{1,2})_(?P<minor>\d{1,3})_(?P<arch>\w{2,20})"
    r"|(?P<legacy>manylinux1|manylinux2010|manylinux2014)_(?P<legacy_arch>\w{2,20})"
    r"|macosx_(?P<mac_major>\d{2})_(?P<mac_minor>\d{1,2})_(?P<mac_arch>\w{2,20})"
    r"|(?P<windows>win32|win_amd64|win_arm64)|linux_(?P<linux_arch>\w{2,20}))\Z",
    re.ASCII,
)
#: The glibc that the older names stand for (PEP 600).
_LEGACY = {"manylinux1": 5, "manylinux2010": 12, "manylinux2014": 17}
_OLDEST_GLIBC = 5
_WINDOWS_MACHINES = {"win32": "x86", "win_amd64": "AMD64", "win_arm64": "ARM64"}
_SYSTEMS = {"linux": ("posix", "Linux"), "darwin": ("posix", "Darwin"), "win32": ("nt", "Windows")}


@dataclass(frozen=True, slots=True)
class Target:
    """One machine, as far as it was named: where neither is, whatever there is."""

    python: Version | None = None
    #: As wheels name it, in lower case.
    platform: str | None = None

    @classmethod
    def parse(cls, python: str | None, platform: str | None) -> Self:
        """Raises Invalid."""
        return cls(_parse_python(python) if python else None, _parse_platform(platform) if platform else None)

    def platforms(self) -> list[str]:
        """Every platform whose wheels run there, the most specific first; none where no platform was named."""
        return _expand(self.platform) if self.platform else []

    def fits(self, wheel_tags: Iterable[tags.Tag]) -> bool:
        """Whether a wheel with one of the tags runs there."""
        return any(self._fits(tag) for tag in wheel_tags)

    def _fits(self, tag: tags.Tag) -> bool:
        if self.platform and tag.platform != "any" and tag.platform not in _expand(self.platform):
            return False
        return self.python is None or (tag.interpreter, tag.abi) in _list_abis(self.python.release[:2])

    def environment(self) -> dict[str, str]:
        """What is known of its marker environment."""
        found: dict[str, str] = {}
        if self.python:
            full = ".".join(map(str, (*self.python.release, 0, 0)[:3]))
            found |= {
                "python_version": ".".join(map(str, self.python.release[:2])),
                "python_full_version": full,
                "implementation_name": "cpython",
                "implementation_version": full,
                "platform_python_implementation": "CPython",
            }
        if self.platform:
            system, machine = _describe(self.platform)
            os_name, name = _SYSTEMS[system]
            found |= {
                "sys_platform": system,
                "os_name": os_name,
                "platform_system": name,
                "platform_machine": machine,
                # Nobody knows them.
                "platform_release": "",
                "platform_version": "",
            }
        return found


def combine_targets(pythons: Sequence[str], platforms: Sequence[str]) -> list[Target]:
    """Each Python on each platform; one target that names nothing where neither is given. Raises Invalid."""
    return [Target.parse(*pair) for pair in itertools.product(pythons or (None,), platforms or (None,))]


def choose_fitting(filenames: Sequence[str], target: Target) -> list[str]:
    """Those of one release's files that are for the target: its wheels, or what else there is where none fits."""
    wheels = [name for name in filenames if name.endswith(".whl")]
    fitting = [name for name in wheels if _fits_wheel(name, target)]
    return fitting or [name for name in filenames if name not in wheels]


def _fits_wheel(filename: str, target: Target) -> bool:
    try:
        return target.fits(parse_wheel_filename(filename)[3])
    except InvalidWheelFilename:
        return False


def _parse_python(text: str) -> Version:
    try:
        version = Version(text)
    except InvalidVersion:
        version = None
    if version is None or str(version) != ".".join(map(str, version.release)) or not 2 <= len(version.release) <= 3:
        raise Invalid(f"--python {text[:50]!a} is not a version of Python: write 3.12 or 3.12.4")
    return version


def _parse_platform(text: str) -> str:
    platform = text.lower().replace("-", "_").replace(".", "_")
    if not _PLATFORM.match(platform):
        raise Invalid(
            f"--platform {text[:50]!a} is not a platform: write it as wheels do, such as manylinux_2_28_x86_64, "
            "musllinux_1_2_aarch64, macosx_14_0_arm64 or win_amd64"
        )
    return platform


@functools.lru_cache(maxsize=64)
def _expand(platform: str) -> list[str]:
    parts = _match(platform)
    if parts["legacy"]:
        return _expand_glibc(_LEGACY[parts["legacy"]], parts["legacy_arch"])
    if parts["libc"] == "manylinux":
        return _expand_glibc(int(parts["minor"]), parts["arch"])
    if parts["libc"]:
        arch = parts["arch"]
        found = [f"musllinux_{parts['major']}_{minor}_{arch}" for minor in range(int(parts["minor"]), -1, -1)]
        return [*found, f"linux_{arch}"]
    if parts["mac_major"]:
        return list(tags.mac_platforms((int(parts["mac_major"]), int(parts["mac_minor"])), parts["mac_arch"]))
    return [platform]


def _expand_glibc(minor: int, arch: str) -> list[str]:
    found = []
    older = {number: name for name, number in _LEGACY.items()}
    for number in range(minor, _OLDEST_GLIBC - 1, -1):
        found.append(f"manylinux_2_{number}_{arch}")
        if number in older:
            found.append(f"{older[number]}_{arch}")
    return [*found, f"linux_{arch}"]


@functools.lru_cache(maxsize=16)
def _list_abis(version: tuple[int, ...]) -> frozenset[tuple[str, str]]:
    """Pairs of interpreter and ABI that CPython of this version takes."""
    interpreter = "cp" + "".join(map(str, version))
    found = [
        *tags.cpython_tags(version, abis=[interpreter], platforms=["any"]),
        *tags.compatible_tags(version, interpreter=interpreter, platforms=["any"]),
    ]
    return frozenset((tag.interpreter, tag.abi) for tag in found)


def _describe(platform: str) -> tuple[str, str]:
    """Its `sys_platform` and `platform_machine`."""
    parts = _match(platform)
    if parts["windows"]:
        return "win32", _WINDOWS_MACHINES[platform]
    if parts["mac_major"]:
        return "darwin", parts["mac_arch"]
    return "linux", parts["arch"] or parts["legacy_arch"] or parts["linux_arch"]


def _match(platform: str) -> dict[str, str]:
    match = _PLATFORM.match(platform)
    assert match is not None  # it was parsed
    return match.groupdict()

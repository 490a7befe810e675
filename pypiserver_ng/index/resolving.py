"""Asks the machine's own resolver, pip or else uv, which files requirements come to, against one index only.

Nothing of that resolver's configuration on this machine counts: no other index, no constraints, no local files.
"""

import asyncio
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec
from packaging import tags

from pypiserver_ng.errors import Failure, Invalid
from pypiserver_ng.filenames import parse_found
from pypiserver_ng.index.lockfiles import Selection, Wanted, read_lock
from pypiserver_ng.index.requirements import Requirements
from pypiserver_ng.index.targets import Target
from pypiserver_ng.model import NormalizedName, normalize_name
from pypiserver_ng.upstream.pip_index import list_interpreters

#: The first pip that can tell what it would install.
_OLDEST_PIP = (22, 3)
_ASKING_SECONDS = 30
#: What may pass of the environment: where programs are, and how they speak and compile.
_KEPT_VARIABLES = ("PATH", "TMPDIR", "TZ", "SYSTEMROOT", "LD_LIBRARY_PATH", "CC", "CXX", "CFLAGS", "LDFLAGS")
_MOST_LINES = 20
_NOISE = re.compile(
    r"\A(?:WARNING|DEPRECATION|\[notice\]|Looking in|Collecting|Downloading|Using|Would)", re.IGNORECASE
)
_MISSING = re.compile(
    r"(?:the requirement |distribution found for |no versions? of |because (?=\S+ was not found))"
    r"([A-Z0-9][A-Z0-9._-]*)(?:\[[^\]]*\])?(?:===?([A-Z0-9.!+_-]*[A-Z0-9]))?",
    re.IGNORECASE,
)
_MOST_VERSIONS = 10
#: Where pip says all that there is, and what is between one version and the next.
_LISTS = (
    (re.compile(r"(?<=\(from versions: )[^)]+"), ", "),
    (re.compile(r"(?<=Ignored the following yanked versions: ).+"), ", "),
    (re.compile(r"(?<=Ignored the following versions that require a different python version: ).+"), "; "),
)
_PLAIN_PREFIX = re.compile(r"\A(?:ERROR|error):\s*")

#: pip decides markers by the machine that it runs on, whatever --platform and --python-version say.
_PIP_ELSEWHERE = """
import json, sys
from pip._vendor.packaging import markers
known, here = json.loads(sys.argv.pop(1)), markers.default_environment
markers.default_environment = lambda: {**here(), **known}
from pip._internal.cli.main import main
sys.exit(main())
"""


class Unresolvable(Failure):
    """There are no files that fulfil the requirements; `lines` are the resolver's own words."""

    def __init__(self, resolver: str, lines: Sequence[str]) -> None:
        super().__init__(f"{resolver} finds no files that fulfil the requirements")
        self.lines = tuple(lines)

    @property
    def wanted(self) -> dict[NormalizedName, str | None]:
        """Projects of which there was not what was wanted, each with its version where one was."""
        found: dict[NormalizedName, str | None] = {}
        for match in (match for line in self.lines for match in _MISSING.finditer(line)):
            name = normalize_name(match[1])
            found[name] = match[2] or found.get(name)
        return found


@dataclass(frozen=True, slots=True)
class Index:
    """Where to ask: ``url`` ends with ``/simple/``, `root` is what comes before that."""

    root: str

    @property
    def url(self) -> str:
        return f"{self.root}/simple/"


class Resolver:
    """pip or uv of this machine."""

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self.name = name
        self._command = tuple(command)

    async def resolve(
        self, requirements: Requirements, targets: Sequence[Target], index: Index, *, dependencies: bool = True
    ) -> Selection:
        """The files for all targets, those of local projects included. Raises Unresolvable."""
        resolve = _resolve_with_pip if self.name == "pip" else _resolve_with_uv
        wanted: dict[Wanted, None] = {}
        left_out: list[str] = []
        with tempfile.TemporaryDirectory(prefix="pypiserver-ng-") as work:
            for target in targets:
                room = _Room(Path(work), self._command, index, requirements, target, dependencies=dependencies)
                found = await resolve(room)
                wanted |= dict.fromkeys(found.wanted)
                left_out += found.left_out
        return Selection(tuple(wanted), tuple(dict.fromkeys(left_out)))


async def find_resolver() -> Resolver:
    """The pip of this interpreter, else of another on PATH, else uv. Raises Invalid."""
    for interpreter in list_interpreters():
        if await _pip_version(interpreter) >= _OLDEST_PIP:
            return Resolver("pip", (interpreter,))
    if uv := _find_uv():
        return Resolver("uv", (uv,))
    raise Invalid("requirements are resolved by pip 22.3 or newer, or by uv, and neither is here: install one of them")


def _find_uv() -> str | None:
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if beside.exists() else shutil.which("uv")


async def _pip_version(interpreter: str) -> tuple[int, ...]:
    question = "import pip; print(pip.__version__)"
    with suppress(OSError, TimeoutError, ValueError), tempfile.TemporaryDirectory() as work:
        async with asyncio.timeout(_ASKING_SECONDS):
            status, output, _ = await _run([interpreter, "-c", question], _clean_environment(Path(work)), Path(work))
        if status == 0:
            return tuple(int(part) for part in output.split()[-1].split(".")[:2])
    return ()


@dataclass(frozen=True, slots=True)
class _Room:
    """One question, and an empty directory to ask it in."""

    work: Path
    command: Sequence[str]
    index: Index
    requirements: Requirements
    target: Target
    dependencies: bool

    def write(self, name: str, lines: Sequence[str]) -> str:
        path = self.work / name
        path.write_text("\n".join([*lines, ""]), encoding="utf-8")
        return str(path)

    async def run(self, command: Sequence[str], resolver: str) -> str:
        """What it says on its standard output. Raises Unresolvable."""
        status, output, said = await _run(command, _clean_environment(self.work), self.work)
        if status != 0:
            text = f"{output}\n{said}" if resolver == "pip" else said
            raise Unresolvable(resolver, choose_lines(self._make_plain(text)))
        return output

    def _make_plain(self, text: str) -> str:
        """Without addresses that are gone when somebody reads it."""
        for passing in (self.index.root, urlsplit(self.index.root).path, str(self.work)):
            text = text.replace(passing, "") if passing else text
        return text


async def _resolve_with_pip(room: _Room) -> Selection:
    report = room.work / "report.json"
    target = room.target
    options = ["--isolated", "--disable-pip-version-check", "--no-input", "--no-cache-dir", "--no-color"]
    # What failed upstream a moment ago is not asked again so soon: it would only be waited for.
    options += ["--retries", "0", "install"]
    options += ["--dry-run", "--ignore-installed", "--report", str(report), "--index-url", room.index.url]
    options += ["-r", room.write("requirements.txt", room.requirements.lines)]
    if room.requirements.constraints:
        options += ["-c", room.write("constraints.txt", room.requirements.constraints)]
    if not room.dependencies:
        options.append("--no-deps")
    start = [*room.command, "-m", "pip"]
    if target.python or target.platform:
        start = [*room.command, "-c", _PIP_ELSEWHERE, json.dumps(target.environment())]
        options += ["--only-binary", ":all:", "--implementation", "cp"]
        options += ["--python-version", str(target.python)] if target.python else []
        for platform in target.platforms():
            options += ["--platform", platform]
    await room.run([*start, *options], "pip")
    return read_report(report.read_bytes(), room.index)


class _Archive(msgspec.Struct):
    hashes: dict[str, str] = {}


class _Download(msgspec.Struct):
    url: str
    archive_info: _Archive | None = None


class _Install(msgspec.Struct):
    download_info: _Download


class _Report(msgspec.Struct):
    install: list[_Install]


def read_report(content: bytes, index: Index) -> Selection:
    """The files of pip's installation report."""
    wanted: list[Wanted] = []
    left_out: list[str] = []
    for item in msgspec.json.decode(content, type=_Report).install:
        url = item.download_info.url
        path = unquote(url.removeprefix(f"{index.root}/packages/"))
        filename = path.rpartition("/")[2]
        parsed = parse_found(filename)
        if not url.startswith(f"{index.root}/packages/") or parsed is None:
            left_out.append(f"{re.sub(r'//[^/@]*@', '//', url)}: not of an index")
            continue
        hashes = dict(item.download_info.archive_info.hashes) if item.download_info.archive_info else {}
        match path.split("/"):
            case ["-", digest, _] if len(digest) == 64:
                hashes = {"sha256": digest}
        wanted.append(Wanted(parsed.name, filename, {key: hashes[key] for key in hashes if key == "sha256"}))
    return Selection(tuple(wanted), tuple(left_out))


#: How uv calls platforms that it cannot be given as wheels name them.
_UV_PLATFORMS: Mapping[str, str] = {"win_amd64": "x86_64-pc-windows-msvc", "win_arm64": "aarch64-pc-windows-msvc"}


async def _resolve_with_uv(room: _Room) -> Selection:
    """Out of a pylock.toml with every file of each release, what fits."""
    lock = room.work / "pylock.toml"
    target = room.target
    options = ["pip", "compile", "--no-config", "--no-cache", "--quiet", "--no-header", "--color", "never"]
    options += ["--default-index", room.index.url, "--format", "pylock.toml", "--output-file", str(lock)]
    options += ["--no-python-downloads", room.write("requirements.in", room.requirements.lines)]
    if room.requirements.constraints:
        options += ["--constraint", room.write("constraints.txt", room.requirements.constraints)]
    if not room.dependencies:
        options.append("--no-deps")
    if target.python or target.platform:
        options += ["--only-binary", ":all:"]
        options += ["--python-version", str(target.python)] if target.python else []
        options += ["--python-platform", name_for_uv(target.platform)] if target.platform else []
    await room.run([*room.command, *options], "uv")
    found = read_lock("pylock.toml", lock.read_bytes(), [_complete(target)])
    assert found is not None
    return found


def name_for_uv(platform: str) -> str:
    """Raises Invalid where uv has no word for it."""
    if platform in _UV_PLATFORMS:
        return _UV_PLATFORMS[platform]
    if match := re.match(r"manylinux(2014|_2_\d+)_(x86_64|aarch64)\Z", platform):
        return f"{match[2]}-manylinux{match[1]}"
    if match := re.match(r"musllinux_\d+_\d+_(x86_64|aarch64)\Z", platform):
        return f"{match[1]}-unknown-linux-musl"
    if match := re.match(r"macosx_\d+_\d+_(x86_64|arm64)\Z", platform):
        return f"{match[1].replace('arm64', 'aarch64')}-apple-darwin"
    raise Invalid(f"uv cannot resolve for --platform {platform}: install pip, which can")


def _complete(target: Target) -> Target:
    """What is not named is as it is on this machine."""
    here = next(iter(tags.platform_tags()))
    version = ".".join(map(str, sys.version_info[:3]))
    return Target.parse(str(target.python) if target.python else version, target.platform or here)


def choose_lines(text: str) -> list[str]:
    """What of a resolver's output says why it failed."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    first = [
        number for number, line in enumerate(lines) if _PLAIN_PREFIX.match(line) or line.startswith("The conflict")
    ]
    chosen = [line for line in lines[first[0] :] if not _NOISE.match(line.strip())] if first else lines[-_MOST_LINES:]
    return [_shorten(_PLAIN_PREFIX.sub("", line)) for line in dict.fromkeys(chosen)][:_MOST_LINES]


def _shorten(line: str) -> str:
    """With the last ones only of many versions, which are the newest."""
    for pattern, separator in _LISTS:
        if (match := pattern.search(line)) and len(versions := match[0].split(separator)) > _MOST_VERSIONS:
            rest = len(versions) - _MOST_VERSIONS
            shown = separator.join(versions[-_MOST_VERSIONS:])
            line = f"{line[: match.start()]}{shown} … and {rest} more{line[match.end() :]}"
    return line


async def _run(command: Sequence[str], environment: Mapping[str, str], work: Path) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
        cwd=work,
        # It has children of its own where it builds: they end together.
        start_new_session=True,
    )
    try:
        output, said = await process.communicate()
    except BaseException:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        await process.wait()
        raise
    assert process.returncode is not None
    return process.returncode, output.decode(errors="replace"), said.decode(errors="replace")


def _clean_environment(work: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    return kept | {
        # No configuration, no credentials and no cache of whoever runs this.
        "HOME": str(work),
        # To pip, the null device is no configuration file at all.
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "UV_NO_CONFIG": "1",
        "NO_PROXY": "*",
        "LC_ALL": "C.UTF-8",
        "PYTHONUTF8": "1",
        # So that messages are not broken into lines.
        "COLUMNS": "500",
    }

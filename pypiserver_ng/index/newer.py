"""What upstreams have that is newer than what is here. Nothing else asks them for names of local projects."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import Version

from pypiserver_ng.errors import Denied, Failure, NotFound, UpstreamFailed
from pypiserver_ng.index import Index
from pypiserver_ng.index.lockfiles import Wanted
from pypiserver_ng.index.store import Store
from pypiserver_ng.index.targets import Target, choose_fitting
from pypiserver_ng.index.threads import Threads
from pypiserver_ng.index.turns import run_each
from pypiserver_ng.model import Kind, NormalizedName, UpstreamFile
from pypiserver_ng.policy import Decision, Policy
from pypiserver_ng.policy.advisories import read_version

_MOST_PAGES = 8
#: An upstream is not asked twice within so many seconds.
_FRESH_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Newer:
    """A local project of which an upstream offers something newer."""

    name: NormalizedName
    here: str
    offered: str
    files: tuple[Wanted, ...]


@dataclass(frozen=True, slots=True)
class Survey:
    """What upstreams offer of local projects, by name; and what could not be asked, one line each."""

    newer: tuple[Newer, ...]
    problems: tuple[str, ...]


def find_upstreams(policy: Policy, name: NormalizedName) -> Decision:
    """Who has the project beside this index, whether it is local or not. Raises Denied."""
    decision = policy.decide(name, is_local=False)
    if not decision.upstreams:
        raise Denied(f"{decision.rule} keeps {name} from upstream")
    return decision


class Versions:
    def __init__(self, index: Index, store: Store, threads: Threads) -> None:
        self._index = index
        self._catalog = store.catalog
        self._threads = threads

    async def survey(
        self,
        names: Sequence[NormalizedName],
        ignored: set[NormalizedName],
        targets: Sequence[Target] = (),
        *,
        allow_unstable: bool,
    ) -> Survey:
        """What is newer of the named local projects, or of all; every file, or what is for the targets.

        Raises NotFound.
        """
        here = await self._threads.run(self._list_versions)
        for name in names:
            if name not in here:
                raise NotFound(f"{name} has no file here: fetch brings new projects")
        chosen = [name for name in sorted(names or here) if name not in ignored]

        async def ask(name: NormalizedName) -> Newer | str | None:
            try:
                decision = find_upstreams(self._index.policy, name)
            except Denied as fault:
                return fault.message if name in names else None
            try:
                return await self._find_newer(name, here[name], decision, targets, allow_unstable=allow_unstable)
            except NotFound:
                return None
            except Failure as fault:
                return f"{name}: {fault.message}"

        answers = await run_each(chosen, _MOST_PAGES, ask)
        return Survey(
            tuple(answer for answer in answers if isinstance(answer, Newer)),
            tuple(answer for answer in answers if isinstance(answer, str)),
        )

    def _list_versions(self) -> dict[NormalizedName, set[str]]:
        """Of every project that takes files."""
        found: dict[NormalizedName, set[str]] = {}
        for known in self._catalog.everything():
            parsed = known.presence.parsed
            found.setdefault(parsed.name, set()).add(parsed.version)
        return {name: found[name] for name in found if self._catalog.status(name)[0].takes_uploads}

    async def _find_newer(
        self,
        name: NormalizedName,
        here: set[str],
        decision: Decision,
        targets: Sequence[Target],
        *,
        allow_unstable: bool,
    ) -> Newer | None:
        began = time.time()
        shelf = await self._index.mirror.shelf(name, decision, self._index.policy, None, refresh=True)
        source = shelf.source
        if source is not None and not self._index.mirror.is_offline and source.kept.checked < began - _FRESH_SECONDS:
            raise UpstreamFailed(f"the upstream {source.upstream.name!r} does not say what it has now")
        mine = max((version for text in here if (version := read_version(text))), default=None)
        if mine is None:
            return None
        releases: dict[Version, list[UpstreamFile]] = {}
        for file in shelf.project.files:
            version = read_version(file.version)
            if version is None or version <= mine or file.yanked or file.kind not in {Kind.WHEEL, Kind.SDIST}:
                continue
            if isinstance(file, UpstreamFile) and (allow_unstable or mine.is_prerelease or not version.is_prerelease):
                releases.setdefault(version, []).append(file)
        for newest in sorted(releases, reverse=True):
            if files := _choose(releases[newest], targets):
                wanted = [Wanted(name, one.filename, {"sha256": one.sha256} if one.sha256 else {}) for one in files]
                return Newer(name, str(mine), str(newest), tuple(wanted))
        return None


def _choose(files: Sequence[UpstreamFile], targets: Sequence[Target]) -> list[UpstreamFile]:
    """Those of one release that are for one of the targets; all of them where no target was named."""
    chosen: set[str] = set()
    for target in targets:
        chosen.update(choose_fitting([file.filename for file in files if _takes(file, target)], target))
    return [file for file in files if not targets or file.filename in chosen]


def _takes(file: UpstreamFile, target: Target) -> bool:
    """Whether the file takes the target's Python, as far as it says which it takes."""
    if target.python is None or file.requires_python is None:
        return True
    try:
        return SpecifierSet(file.requires_python).contains(target.python)
    except InvalidSpecifier:
        return True

"""What the members of an archive may be called and where links may lead, whatever the archive's format."""

import re
from itertools import chain

from packaging.version import Version

from pypiserver_ng.errors import Invalid
from pypiserver_ng.model import ParsedFilename, normalize_name

#: Largest METADATA or PKG-INFO in bytes.
MAX_METADATA = 4 * 2**20
#: PATH_MAX of the usual systems.
_MAX_PATH = 4096
#: The names of all directories and links together, in characters; what has to be kept takes up to 4 bytes for each.
_MAX_NAMES = 2 * 2**20
#: Characters of a name-version; trying every dash of a longer one would take minutes.
_LONGEST_NAME = 512
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\\]")
_DRIVE = re.compile(r"\A[A-Za-z]:")


def quote(name: str) -> str:
    """A hostile name for a message: printable ASCII, at most about 80 characters."""
    return ascii(name if len(name) <= 80 else name[:77] + "...")


def is_called(name: str, parsed: ParsedFilename) -> bool:
    """Whether `name` is ``{name}-{version}`` of the file, in whatever spelling."""
    if len(name) > _LONGEST_NAME:
        return False
    head, _, tail = name.partition("-")
    while tail:
        if normalize_name(head) == parsed.name and _is_version(tail, parsed.version):
            return True
        dash, _, tail = tail.partition("-")
        head += "-" + dash
    return False


def _is_version(text: str, version: str) -> bool:
    if text == version:
        return True
    try:
        return Version(text.replace("_", "-")) == Version(version)
    except ValueError:
        return False


class Tree:
    """Takes the members one by one and refuses each that could be written outside of the archive's root, or twice.

    With `depth` 1 the root is the one top directory that all members share (an sdist), with 0 the archive itself.
    """

    def __init__(self, depth: int) -> None:
        self._depth = depth
        #: With all that they lie in.
        self._directories: set[str] = set()
        self._targets: set[str] = set()
        self._links: set[str] = set()
        # Hashes of the names of files and links: all names could fill the memory.
        self._files: set[int] = set()
        self._length = 0
        #: The first component of the first member.
        self.top = ""

    def add(self, path: str) -> None:
        """Take a file, or a directory, whose `path` ends in ``/`` and may be there again. Raises Invalid."""
        directory = self._enter(path)
        if path.endswith("/"):
            self._pass_through(path[:-1])
        elif hash(path) in self._files:
            raise Invalid(f"The archive has the member {quote(path)} twice")
        else:
            self._files.add(hash(path))
        self._pass_through(directory)

    def _enter(self, path: str) -> str:
        """The directory that `path` lies in."""
        parts = _split(path)
        self.top = self.top or parts[0]
        if self._depth and parts[0] != self.top:
            raise Invalid(f"The archive has more than one top directory: {quote(self.top)} and {quote(parts[0])}")
        return "/".join(parts[:-1])

    def add_symlink(self, path: str, target: str) -> None:
        """Take a symbolic link. Raises Invalid.

        ``..`` is taken at the beginning only: anywhere else it can follow another link to a place that the text
        does not show.
        """
        path = path.removesuffix("/")
        self.add(path)
        self._links.add(path)
        self._count(path)
        steps = [part for part in _check_text(target).split("/") if part not in {"", "."}]
        up = 0
        while up < len(steps) and steps[up] == "..":
            up += 1
        inside = path.count("/") - self._depth
        if target.startswith("/") or _DRIVE.match(target) or ".." in steps[up:] or up > inside:
            raise Invalid(f"The archive has a link that leaves it: {quote(path)}")

    def add_hardlink(self, path: str, target: str) -> None:
        """Take a hard link; `target` is another member. Raises Invalid."""
        self.add(path)
        self._pass_through(self._enter(target))
        if target not in self._targets:
            self._targets.add(target)
            self._count(target)

    def finish(self) -> None:
        """Raise Invalid if any member lies behind a link, or in what is a file."""
        for name in chain(self._directories, self._targets):
            if name in self._links:
                raise Invalid(f"The archive has members behind the link {quote(name)}")
        for directory in self._directories:
            if hash(directory) in self._files:
                raise Invalid(f"The archive has the member {quote(directory)} as a file and as a directory")

    def _pass_through(self, directory: str) -> None:
        while directory and directory not in self._directories:
            self._directories.add(directory)
            self._count(directory)
            directory = directory.rpartition("/")[0]

    def _count(self, name: str) -> None:
        self._length += len(name)
        if self._length > _MAX_NAMES:
            raise Invalid(f"The archive's names of directories and links have more than {_MAX_NAMES} characters")


def _split(path: str) -> list[str]:
    parts = _check_text(path).removesuffix("/").split("/")
    if any(part in {"", ".", ".."} for part in parts) or _DRIVE.match(path):
        raise Invalid(f"The archive has a member that leaves it: {quote(path)}")
    return parts


def _check_text(path: str) -> str:
    if len(path) > _MAX_PATH:
        raise Invalid(f"The archive has a member whose name is longer than {_MAX_PATH} characters")
    if _FORBIDDEN.search(path):
        raise Invalid(f"The archive has a member with a forbidden character in its name: {quote(path)}")
    return path

"""An htpasswd file: which passwords match, and when the file is read again.

Holds the file format, the list of accepted hash schemes and the last good content of one file. Must not know
HTTP, identities, or how long a verified password is remembered.
"""

import errno
import logging
import re
import stat
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from passlib.hash import apr_md5_crypt, argon2, bcrypt, ldap_sha1, sha256_crypt, sha512_crypt

logger = logging.getLogger(__name__)

#: Bytes. Longer passwords are refused unread: hashing time grows with them, and no scheme needs them.
LONGEST_PASSWORD = 4096
#: Seconds for which a changed file must rest before it is believed. Longer than the step of any file system's
#: clock (10 ms on Linux), so that a write during the read always shows in the modification time.
SETTLE = 0.05
#: How often a file that does not rest is tried in one go.
ATTEMPTS = 4
#: Seconds for which a file must have been left alone that may end too early: who writes it may be slow. A user who was
#: removed is to be refused within two seconds.
PATIENCE = 1.0

_B64 = "[./A-Za-z0-9]"


@dataclass(frozen=True, slots=True)
class _Scheme:
    #: Matches a whole hash; its groups are what makes the hash slow.
    pattern: re.Pattern[str]
    handler: Any
    #: The largest of each group that is accepted: one login must not stop the others.
    most: tuple[int, ...] = ()
    #: Bytes of a password that count. bcrypt ignores the rest, so a longer one must not match.
    longest: int = LONGEST_PASSWORD


#: Rounds of sha-crypt that one login may cost: about a second.
_MOST_ROUNDS = 2_000_000
#: The explicit list. A line that fits none of these never matches: guessing from the text would take an unknown
#: hash for a plaintext password, and so let the hash itself log in.
_SCHEMES = (
    _Scheme(re.compile(rf"\$2[aby]\$([0-9]{{2}})\${_B64}{{53}}"), bcrypt, most=(16,), longest=72),
    _Scheme(re.compile(rf"\$apr1\$[^$]{{0,8}}\${_B64}{{22}}"), apr_md5_crypt),
    _Scheme(re.compile(r"\{SHA\}[+/A-Za-z0-9]{27}="), ldap_sha1),
    _Scheme(re.compile(rf"\$5\$(?:rounds=([0-9]+)\$)?[^$]{{0,16}}\${_B64}{{43}}"), sha256_crypt, most=(_MOST_ROUNDS,)),
    _Scheme(re.compile(rf"\$6\$(?:rounds=([0-9]+)\$)?[^$]{{0,16}}\${_B64}{{86}}"), sha512_crypt, most=(_MOST_ROUNDS,)),
    _Scheme(
        re.compile(
            r"\$argon2(?:i|d|id)\$(?:v=[0-9]+\$)?m=([0-9]+),t=([0-9]+),p=([0-9]+)\$[+/A-Za-z0-9]+\$[+/A-Za-z0-9]+"
        ),
        argon2,
        # KiB of memory, passes, lanes.
        most=(256 * 1024, 20, 16),
    ),
)

_NOT_UTF8 = "not UTF-8; the line is ignored"
_NO_COLON = "no colon between user and hash; the line is ignored"
_NO_USER = "no user before the colon; the line is ignored"
_NO_HASH = "no hash after the user; this user cannot log in"
_NOT_ACCEPTED = (
    "not a whole hash of an accepted scheme and cost (bcrypt, apr1, {SHA}, $5$, $6$, argon2); this user cannot log in, "
    "set the password anew with `htpasswd -B`"
)
_DUPLICATE = "this user has an earlier line, which counts; the line is ignored"


@dataclass(frozen=True, slots=True)
class _Entry:
    scheme: _Scheme
    hash: str = field(repr=False)
    #: Entries of equal cost take equal time to verify.
    cost: tuple[object, ...]

    def matches(self, password: bytes) -> bool:
        if len(password) > self.scheme.longest:
            return False
        try:
            return bool(self.scheme.handler.verify(password, self.hash))
        except Exception as error:
            # For instance no memory for argon2. Only the type: the library's messages quote the hash.
            logger.error("a password could not be verified: %s", type(error).__name__)  # noqa: TRY400
            return False


@dataclass(frozen=True, slots=True, eq=False)
class Htpasswd:
    """What one reading of the file said. A user whose line is of no use is in `entries` with None."""

    entries: Mapping[str, _Entry | None] = field(repr=False)
    #: (line number from 1, what is wrong with it); the words never hold anything of the line.
    problems: tuple[tuple[int, str], ...]
    #: Stands in for unknown users, so that they take as long as most of the known ones.
    decoy: _Entry | None = field(repr=False)

    def verify(self, user: str, password: str) -> bool:
        """Whether the password is this user's. Blocks for up to a second; raises nothing.

        Empty passwords never match, nor do ones with NUL or lone surrogates, of more than `LONGEST_PASSWORD`
        bytes of UTF-8, or with bcrypt of more than 72.
        """
        try:
            secret = password.encode()
        except UnicodeEncodeError:
            return False
        if not secret or b"\0" in secret:
            return False
        known = self.entries.get(user)
        entry = known or self.decoy
        return entry is not None and entry.matches(secret) and known is not None

    def get_hash(self, user: str) -> str | None:
        """The stored hash that can log this user in, or None."""
        entry = self.entries.get(user)
        return entry.hash if entry else None


def parse_htpasswd(data: bytes) -> Htpasswd:
    """Read `user:hash` lines; comments (#) and blank lines are skipped, the first line of a user counts.

    As in Apache, white space around a line and everything after a second colon mean nothing. Raises nothing:
    what is wrong with a line is in `problems`.
    """
    entries: dict[str, _Entry | None] = {}
    problems: list[tuple[int, str]] = []
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").splitlines(), start=1):
        line = line.strip()
        if not line or line.startswith(b"#"):
            continue
        problem = _take_line(line, entries)
        if problem:
            problems.append((number, problem))
    return Htpasswd(MappingProxyType(entries), tuple(problems), _choose_decoy(entries.values()))


def _take_line(line: bytes, entries: dict[str, _Entry | None]) -> str | None:
    """Add the line's user to `entries`; answers what is wrong with the line, if anything."""
    try:
        user, colon, rest = line.decode().partition(":")
    except UnicodeDecodeError:
        return _NOT_UTF8
    if not colon:
        return _NO_COLON
    if not user:
        return _NO_USER
    if user in entries:
        return _DUPLICATE
    text = rest.partition(":")[0]
    entries[user] = _recognize(text)
    if entries[user] is None:
        return _NOT_ACCEPTED if text else _NO_HASH
    return None


def _recognize(text: str) -> _Entry | None:
    for scheme in _SCHEMES:
        match = scheme.pattern.fullmatch(text)
        if match is None:
            continue
        try:
            if any(int(cost) > most for cost, most in zip(match.groups("0"), scheme.most, strict=True)):
                return None
            scheme.handler.from_string(text)  # knows which costs and salts are possible
        except Exception:
            return None
        return _Entry(scheme, text, (scheme.handler.name, *match.groups()))
    return None


def _choose_decoy(entries: Iterable[_Entry | None]) -> _Entry | None:
    """One entry of the cost that most entries have."""
    usable = [entry for entry in entries if entry]
    costs = Counter(entry.cost for entry in usable)
    return max(usable, key=lambda entry: costs[entry.cost], default=None)


#: (mtime in ns, size in bytes, inode): what changes when a file is edited in place or replaced.
_Signature = tuple[int, int, int]


class PasswordFile:
    """The last good content of one htpasswd file. Every method may be called from any thread.

    `pause` waits for the given seconds and `clock` tells the time as files have it; they are there for tests. Raises
    ValueError, with one line for the person who starts the server, when the file cannot be read at the start.
    """

    def __init__(
        self, path: Path, *, pause: Callable[[float], None] = time.sleep, clock: Callable[[], float] = time.time
    ) -> None:
        self._path = path
        self._pause = pause
        self._clock = clock
        self._content: Htpasswd | None = None
        self._lock = threading.Lock()
        self._unreadable = False
        self._named: set[tuple[int, str]] = set()
        try:
            found = self._read()
        except OSError as error:
            raise ValueError(
                f"the password file {path} cannot be read: {error.strerror}; give another one with --passwords"
            ) from error
        if found is None:
            raise ValueError(f"the password file {path} is being written all the time; start again when it rests")
        self._signature, self._content = found
        self._name_problems()

    @property
    def current(self) -> Htpasswd:
        """What was read last; costs nothing."""
        assert self._content is not None
        return self._content

    def refresh(self) -> Htpasswd:
        """Read the file again if it changed, and answer what holds now.

        Blocks, for about `SETTLE` seconds where the file changed. A file that is gone, cannot be read or is
        being written leaves the last good content in force.
        """
        with self._lock:
            try:
                if _sign(self._path) != self._signature:
                    found = self._read()
                    if found:
                        self._signature, self._content = found
                        self._name_problems()
            except OSError as error:
                if not self._unreadable:
                    logger.warning(
                        "the password file %s cannot be read (%s); its last content stays in force",
                        self._path,
                        error.strerror,
                    )
                self._unreadable = True
            else:
                self._unreadable = False
            return self.current

    def _read(self) -> tuple[_Signature, Htpasswd] | None:
        """The content with its signature, or None if somebody kept writing. Raises OSError.

        The file must look the same before a pause and after the read that follows it: a writer that has begun
        gets the pause to finish in, and one that begins later leaves another modification time.
        """
        for _ in range(ATTEMPTS):
            before = _sign(self._path)
            self._pause(SETTLE)
            data = self._path.read_bytes()
            if _sign(self._path) == before:
                found = parse_htpasswd(data)
                return None if self._may_be_cut_off(before, data, found) else (before, found)
        return None

    def _may_be_cut_off(self, signature: _Signature, data: bytes, found: Htpasswd) -> bool:
        """Whether the file looks as if somebody were still writing it: it ends in a line, or users are missing."""
        if self._content is None or self._clock() - signature[0] / 1e9 > PATIENCE:
            return False
        # Another file in its place was finished before it came there.
        is_edited = signature[2] == self._signature[2]
        misses = self._content.entries.keys() - found.entries.keys()
        return not data.endswith(b"\n") or (is_edited and bool(misses))

    def _name_problems(self) -> None:
        """Log each faulty line once, and again only when it is faulty in another way; and that nobody can log in."""
        if not any(self.current.entries.values()):
            logger.warning("the password file %s has no user who can log in", self._path)
        for number, what in self.current.problems:
            if (number, what) not in self._named:
                logger.warning("password file %s, line %d: %s", self._path, number, what)
        self._named.update(self.current.problems)


def _sign(path: Path) -> _Signature:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        # A pipe can be read only once, and opening one may wait for ever.
        raise OSError(errno.EINVAL, "it is not a regular file")
    return status.st_mtime_ns, status.st_size, status.st_ino

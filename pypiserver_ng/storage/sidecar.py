"""Core metadata of wheels, kept outside their archives. A cache: every read is checked, any loss is repaired."""

import contextlib
import hashlib
import logging
import os
import secrets
import time
from collections.abc import Container
from pathlib import Path

_log = logging.getLogger(__name__)

_SWEEP_AGE_SECONDS = 3600


class MetadataStore:
    """Bytes by their own sha256; wheels of one release that share their METADATA share one file."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def put(self, content: bytes) -> str:
        """Keep the bytes if the disk lets us; returns their sha256."""
        digest = hashlib.sha256(content).hexdigest()
        path = f"{self._directory}/{digest[:2]}/{digest}"
        try:
            # A half-written file is one more loss that reading notices.
            self._write(path, content)
        except FileExistsError:
            if self.get(digest) is None:
                self._replace(path, content)
        except OSError as fault:
            self._warn(fault)
        return digest

    def _replace(self, path: str, content: bytes) -> None:
        """Whatever lies there has the wrong bytes."""
        partial = f"{path}.{secrets.token_hex(8)}"
        try:
            self._write(partial, content)
            os.replace(partial, path)  # noqa: PTH105
        except OSError as fault:
            self._warn(fault)

    @staticmethod
    def _warn(fault: OSError) -> None:
        # They are read from the archive again when somebody asks.
        _log.warning("cannot keep core metadata: %s", fault.strerror)

    def sweep(self, kept: Container[str]) -> None:
        """Remove what no digest of `kept` names, unless it is younger than an hour: its row may be on its way."""
        before = time.time() - _SWEEP_AGE_SECONDS
        for path in self._directory.glob("??/*"):
            with contextlib.suppress(OSError):
                if path.name not in kept and path.stat().st_mtime < before:
                    path.unlink()

    @staticmethod
    def _write(path: str, content: bytes) -> None:
        """Raises OSError, and leaves nothing then."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            fd = os.open(path, flags, 0o666)
        except FileNotFoundError:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(path, flags, 0o666)
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(fd, view) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(path)  # noqa: PTH108
            raise
        finally:
            os.close(fd)

    def get(self, digest: str) -> bytes | None:
        """The bytes with this sha256, or None when they are missing or damaged."""
        try:
            content = self._path(digest).read_bytes()
        except OSError:
            return None
        return content if hashlib.sha256(content).hexdigest() == digest else None

    def _path(self, digest: str) -> Path:
        return self._directory / digest[:2] / digest


def make_private_directory(path: Path) -> None:
    """Create a directory that only its owner may enter, with its parents."""
    path.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(PermissionError):
        path.chmod(0o700)

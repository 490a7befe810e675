"""Core metadata of wheels, kept outside their archives. A cache: every read is checked, any loss is repaired."""

import contextlib
import hashlib
import logging
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
        if self.get(digest) is None:
            try:
                self._write(self._path(digest), content)
            except OSError as fault:
                # They are read from the archive again when somebody asks.
                _log.warning("cannot keep core metadata: %s", fault.strerror)
        return digest

    def sweep(self, kept: Container[str]) -> None:
        """Remove what no digest of `kept` names, unless it is younger than an hour: its row may be on its way."""
        before = time.time() - _SWEEP_AGE_SECONDS
        for path in self._directory.glob("??/*"):
            with contextlib.suppress(OSError):
                if path.name not in kept and path.stat().st_mtime < before:
                    path.unlink()

    @staticmethod
    def _write(path: Path, content: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        try:
            partial.write_bytes(content)
            # Replacing is right here: whatever lies there has the wrong bytes.
            partial.replace(path)
        finally:
            with contextlib.suppress(OSError):
                partial.unlink()

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

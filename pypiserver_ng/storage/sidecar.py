"""Core metadata of wheels, kept outside their archives. A cache: every read is checked, any loss is repaired."""

import contextlib
import hashlib
import secrets
from pathlib import Path


class MetadataStore:
    """Bytes by their own sha256; wheels of one release that share their METADATA share one file."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def put(self, content: bytes) -> str:
        """Keep the bytes; returns their sha256."""
        digest = hashlib.sha256(content).hexdigest()
        if self.get(digest) is None:
            path = self._path(digest)
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f"{digest}.{secrets.token_hex(8)}")
            try:
                partial.write_bytes(content)
                # Replacing is right here: whatever lies there has the wrong bytes.
                partial.replace(path)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    partial.unlink()
        return digest

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

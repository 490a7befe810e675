"""Has a proxy send a file from the disk: `X-Accel-Redirect`, as nginx knows it.

Only to a trusted proxy that says for whom it asks, and only what lies below directories that are served. Nothing that
a request says about locations is heard.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from starlette.types import Scope

from pypiserver_ng.index.opened import Opened


class Accel:
    """`prefix` is where the proxy finds the file system's root; None sends nobody anywhere."""

    def __init__(self, prefix: str | None, directories: Sequence[Path]) -> None:
        self._prefix = prefix
        self._directories = tuple(os.path.join(os.path.realpath(path), "") for path in directories)  # noqa: PTH118

    def locate(self, scope: Scope, opened: Opened) -> bytes | None:
        """Where the proxy that asks finds the file; None where its bytes are to be sent."""
        if self._prefix is None or not scope.get("is_proxied"):
            return None
        path = opened.real_path()
        # A link may lead anywhere, and the proxy is to reach nothing else.
        if path is None or not path.startswith(self._directories):
            return None
        return f"{self._prefix}{quote(os.fsencode(path))}".encode("ascii")

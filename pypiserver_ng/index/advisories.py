"""Follows the records of malware that the operator keeps on the disk: what they name is withheld as soon as they do."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from pypiserver_ng.errors import Failure
from pypiserver_ng.index.threads import Threads
from pypiserver_ng.policy import Advisories
from pypiserver_ng.storage.advisories import load_advisories, stamp

_log = logging.getLogger(__name__)

_LOOK_SECONDS = 5.0


class AdvisoryWatch:
    def __init__(self, path: Path) -> None:
        """Blocking. Raises Invalid."""
        self._path = path
        self._stamp = stamp(path)
        self.advisories = load_advisories(path)

    async def run(self, replace: Callable[[Advisories], None]) -> None:
        """Until cancelled, call `replace` with what the records say after they changed."""
        threads = Threads(1, "advisories")
        try:
            while True:
                await asyncio.sleep(_LOOK_SECONDS)
                try:
                    if await threads.run(self._has_changed):
                        replace(self.advisories)
                except (Failure, OSError) as fault:
                    # What was known goes on holding.
                    _log.error("the records in %s cannot be read: %s", self._path, fault)
        finally:
            threads.executor.shutdown(wait=False)

    def _has_changed(self) -> bool:
        current = stamp(self._path)
        if current == self._stamp:
            return False
        # Not before they were read: what cannot be read now is looked at again.
        self.advisories = load_advisories(self._path)
        self._stamp = current
        return True

"""Remembers for a moment what failed upstream, so that nobody waits for the same failure again. Memory only."""

import math
import time

from pypiserver_ng.errors import UpstreamDown, UpstreamFailed
from pypiserver_ng.model import NormalizedName

#: The longest that an upstream may have itself left alone, in seconds.
_LONGEST_PAUSE_SECONDS = 300
_MOST_FAULTS = 10_000


class Faults:
    """By upstream where it cannot be reached, else by upstream and project. Used on the event loop only."""

    def __init__(self) -> None:
        self._faults: dict[tuple[str, str], tuple[float, UpstreamFailed]] = {}

    def remember(self, upstream: str, name: NormalizedName, fault: UpstreamFailed) -> None:
        if len(self._faults) >= _MOST_FAULTS:
            self._faults.clear()
        pause = min(max(fault.retry_after or 0, fault.PAUSE), _LONGEST_PAUSE_SECONDS)
        scope = "" if isinstance(fault, UpstreamDown) else name
        self._faults[upstream, scope] = time.monotonic() + pause, fault

    def find(self, upstream: str, name: NormalizedName) -> UpstreamFailed | None:
        """The fault that asking now would most likely meet again; its `retry_after` says when to try."""
        for key in ((upstream, ""), (upstream, name)):
            if found := self._faults.get(key):
                remaining = found[0] - time.monotonic()
                if remaining > 0:
                    return type(found[1])(found[1].message, retry_after=math.ceil(remaining))
                del self._faults[key]
        return None

    def forget(self, upstream: str, name: NormalizedName) -> None:
        """It answered."""
        self._faults.pop((upstream, ""), None)
        self._faults.pop((upstream, name), None)

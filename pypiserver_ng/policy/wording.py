"""Durations, moments and statuses as people read them. Knows no rule."""

from datetime import UTC, datetime

from pypiserver_ng.model import NormalizedName, Status

_UNITS = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


def describe_duration(seconds: int) -> str:
    """In the largest unit that needs no fraction: ``4 days``, ``36 hours``."""
    size, unit = next((size, unit) for size, unit in _UNITS if seconds % size == 0)
    count = seconds // size
    return f"{count} {unit}" if count == 1 else f"{count} {unit}s"


def write_duration(seconds: int) -> str:
    """As a flag takes it: ``4d``, ``36h``."""
    size, unit = next((size, unit) for size, unit in _UNITS if seconds % size == 0)
    return f"{seconds // size}{unit[0]}"


def describe_moment(moment: datetime) -> str:
    """In UTC, with seconds where it has any."""
    is_whole = not moment.second and not moment.microsecond
    text = moment.astimezone(UTC).isoformat(timespec="minutes" if is_whole else "seconds")
    return text.removesuffix("+00:00") + "Z"


def describe_status(name: NormalizedName, status: Status, reason: str | None) -> str:
    """A project's status as the beginning of a sentence for people."""
    return f"{name} is {status}" + (f" ({reason})" if reason else "")

"""The program's own log: one line an event, as text or as JSON, on stderr unless told otherwise."""

import json
import logging
import sys
from datetime import UTC, datetime
from pathlib import Path

_TEXT_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class _TextFormatter(logging.Formatter):
    """One event, one line: what a hostile name could smuggle in is escaped."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        # Only a traceback has lines of its own; it may quote what a client sent, so each is escaped.
        return "\n".join(map(escape, text.split("\n"))) if record.exc_info else escape(text)


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        event = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        return json.dumps(event)


def announce(text: str, style: str) -> None:
    """A line for the person who started the program, on stderr whatever the log's level; `style` text or json."""
    record = logging.LogRecord("pypiserver_ng", logging.INFO, "", 0, "%s", (text,), None)
    print(_JsonFormatter().format(record) if style == "json" else text, file=sys.stderr, flush=True)  # noqa: T201


def escape(text: str) -> str:
    """One line for a terminal, whatever somebody put into a name."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def configure_logs(*, verbosity: int, stream: str, file: Path | None, style: str) -> None:
    """`stream` is stderr, stdout or none; `style` text or json. Raises OSError when the file cannot be opened."""
    handlers: list[logging.Handler] = []
    if stream != "none":
        handlers.append(logging.StreamHandler(sys.stdout if stream == "stdout" else sys.stderr))
    if file is not None:
        handlers.append(logging.FileHandler(file, encoding="utf-8", errors="backslashreplace"))
    formatter = _JsonFormatter() if style == "json" else _TextFormatter(_TEXT_FORMAT)
    for handler in handlers:
        handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = handlers or [logging.NullHandler()]
    root.setLevel(logging.DEBUG if verbosity > 1 else logging.INFO if verbosity else logging.WARNING)
    for noisy in ("python_multipart", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)

"""The index that pip on this machine uses: the default upstream.

pip itself is asked, so that its environment variables, its configuration files and its own default count
exactly as they do for `pip install`.
"""

import os
import shutil
import subprocess
import sys

# pip's own option parser merges PIP_INDEX_URL, the configuration files and the built-in default.
_QUESTION = (
    "from pip._internal.commands import create_command as c; print(c('download').parser.get_default_values().index_url)"
)
_TIMEOUT_SECONDS = 20


def find_pip_index() -> str | None:
    """The URL, which may hold credentials, or None where no pip answers. Blocks for about half a second."""
    if url := os.environ.get("PIP_INDEX_URL"):
        return url.strip()
    return next((url for interpreter in list_interpreters() if (url := _ask(interpreter))), None)


def list_interpreters() -> list[str]:
    """Those of this machine that may have a pip; this one first."""
    found = (sys.executable, shutil.which("python3"), shutil.which("python"))
    return [interpreter for interpreter in dict.fromkeys(found) if interpreter]


def _ask(interpreter: str) -> str | None:
    try:
        answer = subprocess.run(  # noqa: S603 - an interpreter of this machine, and a constant
            [interpreter, "-c", _QUESTION],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
            check=True,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    lines = answer.stdout.split()
    return lines[-1] if lines else None

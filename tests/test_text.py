"""What no file of the project may say."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# In pieces, so that this file does not find itself.
FORBIDDEN = {
    "the host of a package registry": r"\b(?:pypi|pythonhosted|anaconda)\.(?:python\.)?" + r"org\b",
    "a path of somebody's machine": r"(?<![\w.}>)\"'-])/" + r"(?:work|tmp|root|home/\w+)(?:/|\b(?![-\w{<]))",
    "work that is left": r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X)\b",
}


def read_tracked_files() -> dict[str, str]:
    """Path to content of every text file that git knows."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z"]
    try:
        listed = subprocess.run(command, capture_output=True, check=True).stdout.decode()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is not a git checkout, or git is missing")
    contents = {}
    for name in filter(None, listed.split("\0")):
        path = ROOT / name
        if path.is_file() and b"\0" not in (raw := path.read_bytes()):
            contents[name] = raw.decode()
    return contents


def find_forbidden(contents: dict[str, str], pattern: str) -> list[str]:
    return [
        f"{name}:{number}: {line.strip()}"
        for name, text in contents.items()
        for number, line in enumerate(text.splitlines(), 1)
        if re.search(pattern, line)
    ]


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_names(what: str) -> None:
    """No file that git knows holds it."""
    contents = read_tracked_files()
    assert "pyproject.toml" in contents
    assert find_forbidden(contents, FORBIDDEN[what]) == []


def test_the_patterns_find_what_they_forbid() -> None:
    """Each in a line like those that would be written by mistake."""
    lines = ["see https://py" + "pi.org/simple/", "cd /wor" + "k/main", "# TO" + "DO: later"]
    assert [find_forbidden({"x": line}, pattern) for line, pattern in zip(lines, FORBIDDEN.values(), strict=True)] == [
        [f"x:1: {line}"] for line in lines
    ]
    assert find_forbidden({"x": 'tmp_path / "work", docs/workers, {url}/root'}, FORBIDDEN[list(FORBIDDEN)[1]]) == []

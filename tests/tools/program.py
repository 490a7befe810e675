"""The program under test as a command that runs to its end."""

import subprocess
import sys
from pathlib import Path


class Program:
    """Runs the program to its end."""

    def __init__(self, cwd: Path, environment: dict[str, str]) -> None:
        self.cwd = cwd
        self.environment = environment

    def run(self, *args: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pypiserver_ng", *map(str, args)],
            cwd=self.cwd,
            env={**self.environment, **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=60,
            check=False,
        )

    def refuse(self, *args: str | Path, **env: str) -> str:
        """The one line that bad usage is answered with."""
        done = self.run(*args, **env)
        assert (done.returncode, done.stdout) == (2, ""), done
        (line,) = done.stderr.splitlines()
        assert line.startswith("pypiserver-ng: error: ")
        return line

"""What `make test` needs beside Python: the real programs that the suite starts, and the real clients.

As root on Debian missing programs are installed; elsewhere they are named and their tests are skipped.
Always succeeds. Run as ``python -m tests.tools.provision``.
"""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from tests.tools.clients import CLIENTS, ClientMissingError, find_command

#: Program to Debian's package that brings it. Later rows go here.
PROGRAMS = {"htpasswd": "apache2-utils", "strace": "strace", "nginx": "nginx-light"}

_APT_SECONDS = 600


def main() -> None:
    for line in [*provide_programs(), *provide_clients()]:
        print(line, file=sys.stderr)


def provide_programs() -> list[str]:
    """One line for each program that had to be installed or is missing."""
    wanted = find_missing()
    if not wanted:
        return []
    failure = install_programs(wanted)
    missing = find_missing()
    lines = [f"{program}: installed" for program in wanted if program not in missing]
    return lines + [f"{program}: missing, its tests are skipped ({failure})" for program in missing]


def find_missing() -> list[str]:
    return [program for program in PROGRAMS if shutil.which(program) is None]


def install_programs(programs: list[str]) -> str:
    """Why some may still be missing, or an empty text."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return "only root on Debian can install it here"
    packages = [PROGRAMS[program] for program in programs]
    install = ["apt-get", "install", "-qq", "--yes", "--no-install-recommends", *packages]
    try:
        for command in (["apt-get", "update", "-qq"], install):
            subprocess.run(
                command,
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_APT_SECONDS,
                check=True,
            )
    except (OSError, subprocess.SubprocessError) as failure:
        return str(failure)
    return "installed, but the program was not found"


def provide_clients() -> list[str]:
    """One line for each client, installed or already there."""
    with ThreadPoolExecutor(max_workers=4) as threads:
        found = dict(zip(CLIENTS, threads.map(find_command, CLIENTS), strict=True))
    return [
        f"{name}: missing, its tests are skipped ({command})"
        if isinstance(command, ClientMissingError)
        else f"{name}: ready"
        for name, command in found.items()
    ]


if __name__ == "__main__":
    main()

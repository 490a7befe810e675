"""What the benchmarks need beside Python: Debian's nginx and wrk, and a virtual environment for each peer."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

_PROGRAMS = ("nginx", "wrk")

#: What is installed for each peer: what its own documentation recommends for serving.
PEERS = {
    "pypiserver": ("pypiserver[cache,passlib]",),
    "devpi-server": ("devpi-server",),
    "proxpi": ("proxpi", "gunicorn"),
    "pypiron": ("pypiron",),
}


def provide_programs() -> None:
    """Raises SystemExit with what to install where that cannot be done here."""
    missing = [program for program in _PROGRAMS if find_program(program) is None]
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise SystemExit(f"{' and '.join(missing)} missing; on Debian: apt-get install {' '.join(missing)}")
    print(f"installing {' and '.join(missing)}", file=sys.stderr)
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], env=quiet, check=True)
    install = ["apt-get", "install", "-qq", "--yes", "--no-install-recommends", *missing]
    subprocess.run(install, env=quiet, stdout=subprocess.DEVNULL, check=True)


def find_program(name: str) -> str | None:
    """Debian keeps servers where only root's PATH leads."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def provide_peer(name: str, home: Path) -> Path:
    """The directory of the peer's programs, in an environment of its own."""
    environment = home / "peers" / name
    done = environment / ".installed"
    wanted = "\n".join(PEERS[name])
    if not done.exists() or done.read_text() != wanted:
        print(f"installing {name}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", environment], check=True)
        pip: list[str | Path] = [
            environment / "bin" / "pip",
            "install",
            "--quiet",
            "--quiet",
            "--disable-pip-version-check",
        ]
        subprocess.run([*pip, *PEERS[name]], check=True)
        done.write_text(wanted)
    return environment / "bin"


def read_version(name: str, home: Path) -> str:
    script = "import sys, importlib.metadata; print(importlib.metadata.version(sys.argv[1]))"
    python = home / "peers" / name / "bin" / "python"
    if not python.exists():
        return "not installed"
    return subprocess.run([python, "-c", script, name], capture_output=True, text=True, check=True).stdout.strip()

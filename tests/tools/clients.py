"""The real clients, each in an environment of its own beside the tests' environment.

They come from the index that pip on this machine is configured to use, once; a client that cannot be
installed is named with the reason, and its tests are skipped. Knows nothing of the program under test.
"""

import functools
import shutil
import subprocess
import sys
import venv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ENVIRONMENTS = Path(__file__).parents[2] / ".venv-clients"

#: Client to what is installed for it. Later rows go here.
CLIENTS: dict[str, tuple[str, ...]] = {
    "pip": ("pip==26.3",),
    "pip-html": ("pip==21.3.1",),  # asks for text/html only, knows no core metadata
    "twine": ("twine==7.0.0",),
    "flit": ("flit==4.2.0",),
    "poetry": ("poetry==2.5.1",),
    "hatch": ("hatch==1.18.2",),
    "pip-tools": ("pip-tools==7.6.2", "pip==26.3"),  # resolves with the pip beside it
    "pipenv": ("pipenv==2026.10.3",),
    "pdm": ("pdm==2.29.3", "unearth<0.19", "hishel<2"),  # does not start with newer ones
    "uv": (),  # a binary that the tests' own environment brings
}

#: How a client is started that is not called like its row.
_PROGRAMS = {"pip": ("python", "-m", "pip"), "pip-html": ("python", "-m", "pip"), "pip-tools": ("pip-compile",)}

_INSTALL_SECONDS = 300
_RUN_SECONDS = 120


class ClientMissingError(Exception):
    """The client cannot be had on this machine; the message gives the reason in one line."""


@dataclass(frozen=True, slots=True)
class Client:
    """A client that can be started any number of times, in one directory with one environment."""

    command: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str]

    def run(
        self, *args: str | Path, ok: bool = True, cwd: Path | None = None, env: Mapping[str, str] | None = None
    ) -> str:
        """Both output streams as one text; the test fails when success is not as `ok` expects."""
        command = [*self.command, *map(str, args)]
        done = subprocess.run(
            command,
            cwd=cwd or self.cwd,
            env={**self.env, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=_RUN_SECONDS,
            check=False,
        )
        said = f"{command!r}\nexit status {done.returncode}\n{done.stdout}"
        assert ok == (done.returncode == 0), said
        return done.stdout


@functools.cache
def find_command(name: str) -> tuple[str, ...] | ClientMissingError:
    """The start of the client's command line, after installing it where that was not done yet.

    The failure is a value, so that an unreachable index is waited for once and not once a test.
    """
    if name == "uv":
        uv = Path(sys.executable).with_name("uv")
        return (str(uv),) if uv.exists() else ClientMissingError("the tests' environment has no uv")
    home = ENVIRONMENTS / name
    try:
        _install(home, CLIENTS[name])
    except (OSError, subprocess.SubprocessError, ClientMissingError) as failure:
        return ClientMissingError(f"{name} cannot be installed: {failure}")
    program, *arguments = _PROGRAMS.get(name, (name,))
    return (str(home / "bin" / program), *arguments)


def _install(home: Path, requirements: tuple[str, ...]) -> None:
    stamp = home / ".installed"
    wanted = "\n".join([sys.version, *requirements])
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    shutil.rmtree(home, ignore_errors=True)
    venv.create(home, with_pip=False, symlinks=True)
    pip = [sys.executable, "-m", "pip", "--python", str(home / "bin" / "python")]
    options = ["--quiet", "--disable-pip-version-check", "--no-input"]
    done = subprocess.run(
        [*pip, "install", *options, *requirements],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=_INSTALL_SECONDS,
        check=False,
    )
    if done.returncode:
        raise ClientMissingError(_reason(done.stderr))
    stamp.write_text(wanted)


def _reason(stderr: str) -> str:
    """The last error line; pip's list of every version that exists is left out."""
    errors = [line for line in stderr.splitlines() if line.startswith("ERROR:")]
    return errors[-1].removeprefix("ERROR:").strip() if errors else stderr.strip()[-200:]


def installed_version(site: Path, module: str) -> str:
    """What an interpreter that is given `site` finds as the version of the module there."""
    code = f"import sys; sys.path.insert(0, {str(site)!r}); import {module}; print({module}.__version__)"
    command = [sys.executable, "-I", "-c", code]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout.strip()

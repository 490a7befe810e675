"""Real distributions with real attestations: the test data of pypi-attestations, taken from its source distribution.

It comes from the index that pip on this machine is configured to use, once, and lies beside the real clients; where
it cannot be had, the failure is a value with the reason. Knows nothing of the program under test.
"""

import functools
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from tests.tools.clients import ENVIRONMENTS, ClientMissingError

_VERSION = "0.0.30"
_SDIST = f"pypi_attestations-{_VERSION}.tar.gz"
_ASSETS = f"pypi_attestations-{_VERSION}/test/assets/"

_DOWNLOAD_SECONDS = 120


@functools.cache
def find_attested() -> dict[str, bytes] | ClientMissingError:
    """Filename to content of distributions (`x`), their attestations (`x.publish.attestation`) and provenances."""
    sdist = ENVIRONMENTS / _SDIST
    try:
        if not sdist.is_file():
            _download(sdist)
        return _read_assets(sdist)
    except (OSError, subprocess.SubprocessError, tarfile.TarError) as failure:
        return ClientMissingError(f"the source distribution of pypi-attestations cannot be had: {failure}")


def _download(sdist: Path) -> None:
    sdist.parent.mkdir(exist_ok=True)
    options = ["--quiet", "--disable-pip-version-check", "--no-input", "--no-deps", "--no-binary=pypi-attestations"]
    with tempfile.TemporaryDirectory(dir=sdist.parent) as scratch:
        subprocess.run(
            [sys.executable, "-m", "pip", "download", *options, f"--dest={scratch}", f"pypi-attestations=={_VERSION}"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_DOWNLOAD_SECONDS,
            check=True,
        )
        (Path(scratch) / sdist.name).replace(sdist)


def _read_assets(sdist: Path) -> dict[str, bytes]:
    with tarfile.open(sdist) as archive:
        members = [member for member in archive if member.isfile() and member.name.startswith(_ASSETS)]
        streams = {member.name.removeprefix(_ASSETS): archive.extractfile(member) for member in members}
        return {name: stream.read() for name, stream in streams.items() if stream}

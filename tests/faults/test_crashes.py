"""The server dies, or the power goes, at any moment: whatever was answered 200 is there afterwards, whole.

A short set runs always; `make test-long` runs many more cycles.
"""

import os
import random
import subprocess
import threading
from pathlib import Path

import pytest

from tests.tools.crashes import NO_FSYNC, Disk, Witness, kill_all, start

LONG = bool(os.environ.get("TEST_LONG"))
#: Cycles for one process and for four, and power cuts.
KILLS, KILLS_OF_FOUR, CUTS, CONTROLS = (140, 60, 300, 6) if LONG else (8, 4, 8, 4)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")


@pytest.fixture
def seed() -> random.Random:
    """Printed where a test fails."""
    number = random.SystemRandom().randrange(2**32)
    print(f"seed {number}")
    return random.Random(number)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("workers", "cycles"), ((1, KILLS), (4, KILLS_OF_FOUR)), ids=["one", "four"])
def test_kill(packages: Path, environment: dict[str, str], seed: random.Random, workers: int, cycles: int) -> None:
    """SIGKILL to every process in the middle of uploads: nothing acknowledged is lost, nothing half-done is listed."""
    witness = Witness()
    for _ in range(cycles):
        server = start(packages, environment, "--workers", str(workers))
        threads = witness.keep_busy(server.url, threading.Event())
        threads[0].join(seed.uniform(0.05, 0.8))
        kill_all(server)
        for thread in threads:
            thread.join()
    server = start(packages, environment)
    try:
        assert witness.find_lies(server.url) == []
        assert list((packages / ".pypiserver-ng" / "scratch").iterdir()) == []
    finally:
        server.stop()
    assert len(witness.acknowledged) > cycles
    print(f"{len(witness.acknowledged)} acknowledged in {cycles} cycles")


def cut_power(home: Path, environment: dict[str, str], seed: random.Random) -> tuple[int, list[str]]:
    """One power cut on a new disk: how many uploads were acknowledged, and what was lost of them."""
    home.mkdir()
    try:
        disk = Disk(home)
        disk.mount()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no ext4 can be made and mounted here")
    packages = disk.point / "packages"
    packages.mkdir()
    witness = Witness()
    try:
        server = start(packages, environment)
        threads = witness.keep_busy(server.url, threading.Event())
        threads[0].join(seed.uniform(0.1, 1.0))
        disk.cut()
        told = dict(witness.acknowledged)
        kill_all(server)
        for thread in threads:
            thread.join()
    finally:
        disk.unmount()
    disk.mount()
    try:
        server = start(packages, environment)
        # What was answered while the power went may be either; before that it was said to be safe.
        witness.acknowledged = told
        lies = witness.find_lies(server.url)
        server.stop()
    finally:
        disk.unmount()
    return len(told), lies


@needs_root
@pytest.mark.timeout(3600)
def test_power_cut(tmp_path: Path, environment: dict[str, str], seed: random.Random) -> None:
    """The disk keeps only what was flushed: that is everything that was acknowledged."""
    total = 0
    for cycle in range(CUTS):
        told, lies = cut_power(tmp_path / str(cycle), environment, seed)
        assert lies == []
        total += told
    assert total > CUTS
    print(f"{total} acknowledged in {CUTS} power cuts")


@needs_root
@pytest.mark.timeout(3600)
def test_a_power_cut_without_flushing_is_noticed(
    tmp_path: Path, environment: dict[str, str], seed: random.Random
) -> None:
    """The control: with fsync switched off the same test must find losses, or it proves nothing."""
    (tmp_path / "patch").mkdir()
    (tmp_path / "patch" / "sitecustomize.py").write_text(NO_FSYNC)
    careless = environment | {"PYTHONPATH": str(tmp_path / "patch")}
    lost = [cut_power(tmp_path / str(cycle), careless, seed)[1] for cycle in range(CONTROLS)]
    assert any(lost)

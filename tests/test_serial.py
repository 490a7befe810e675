"""The shared number of the last change: what another process of the server did shows at once, what others did soon."""

import fcntl
from pathlib import Path

import pytest

from pypiserver_ng.catalog import serial
from pypiserver_ng.catalog.serial import SharedSerial
from pypiserver_ng.counters import Board


@pytest.fixture
def pair(tmp_path: Path) -> tuple[SharedSerial, SharedSerial]:
    """Two processes of one server, both at 1."""
    cell = Board().shared
    one, other = SharedSerial(tmp_path / "serial", cell), SharedSerial(tmp_path / "serial", cell)
    one.advance(1)
    assert one.is_still(1)
    assert other.is_still(1)
    return one, other


@pytest.fixture
def without_glances(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks into the file a second time."""
    monkeypatch.setattr(serial, "_GLANCE_SECONDS", 1e9)


@pytest.mark.usefixtures("without_glances")
def test_a_process_of_the_same_server_needs_no_file(pair: tuple[SharedSerial, SharedSerial]) -> None:
    one, other = pair
    one.advance(5)
    assert not other.is_still(1)
    other.advance(3)
    assert not other.is_still(4)
    one.restart(2)
    assert one.is_still(2)


def test_others_are_noticed_by_the_file(
    pair: tuple[SharedSerial, SharedSerial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serial, "_GLANCE_SECONDS", 0)
    SharedSerial(tmp_path / "serial").advance(2)
    assert not any(process.is_still(1) for process in pair)
    assert [process.value for process in pair] == [2, 2]


@pytest.mark.usefixtures("without_glances")
def test_who_cannot_tell_others_knows_itself(
    pair: tuple[SharedSerial, SharedSerial], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(37, "no locks here")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with pytest.raises(OSError, match="no locks"):
        pair[0].advance(2)
    assert not pair[0].is_still(1)

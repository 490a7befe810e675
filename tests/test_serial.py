"""The shared number of the last change: what another process of the server did shows at once, what others did soon."""

import fcntl
import os
import threading
from collections.abc import Callable
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


def refuse(*_: object) -> None:
    raise OSError(37, "no locks here")


@pytest.mark.usefixtures("without_glances")
@pytest.mark.parametrize(("module", "function"), ((fcntl, "lockf"), (os, "pread"), (os, "pwrite")))
def test_what_the_file_does_not_take_is_known_to_the_server(
    pair: tuple[SharedSerial, SharedSerial], monkeypatch: pytest.MonkeyPatch, module: object, function: str
) -> None:
    """All of its processes, at once; others learn of it when they next compare."""
    one, other = pair
    monkeypatch.setattr(module, function, refuse)
    with pytest.raises(OSError, match="no locks"):
        one.advance(2)
    for process in pair:
        assert process.value == 2
        assert not process.is_still(1)
        assert process.is_still(2)
    # And the next one who can tell it does.
    monkeypatch.undo()
    other.advance(3)
    assert one.value == 3


def test_a_file_that_was_cut_short(pair: tuple[SharedSerial, SharedSerial], tmp_path: Path) -> None:
    """Memory still has the number, and what comes next is told to everybody."""
    (tmp_path / "serial").write_bytes(b"")
    assert [process.value for process in pair] == [1, 1]
    pair[0].advance(2)
    assert SharedSerial(tmp_path / "serial").value == 2


def test_a_file_that_cannot_be_read_any_more(
    pair: tuple[SharedSerial, SharedSerial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it had when it was last read counts, with what the processes of the server did since."""
    one, other = pair
    SharedSerial(tmp_path / "serial").advance(5)
    assert one.value == 5
    monkeypatch.setattr(os, "pread", refuse)
    assert one.value == 5
    with pytest.raises(OSError, match="no locks"):
        other.advance(6)
    assert one.value == 6


def test_without_a_lock_nothing_is_set_back(
    pair: tuple[SharedSerial, SharedSerial], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "lockf", refuse)
    with pytest.raises(OSError, match="no locks"):
        pair[0].restart(0)
    assert [process.value for process in pair] == [1, 1]


@pytest.mark.usefixtures("without_glances")
def test_a_number_that_went_back_is_no_longer_the_old_one(pair: tuple[SharedSerial, SharedSerial]) -> None:
    one, other = pair
    one.advance(5)
    assert other.is_still(5)
    one.restart(2)
    assert not one.is_still(1)
    assert one.is_still(2)
    # However often it is asked.
    assert [one.is_still(5) for _ in range(3)] == [False] * 3
    assert other.value == 2


def set_to(number: int) -> Callable[[SharedSerial], None]:
    return lambda serial: serial.restart(number)


def raise_to(number: int) -> Callable[[SharedSerial], None]:
    return lambda serial: serial.advance(number)


@pytest.mark.parametrize("quick", (set_to(7), raise_to(7)), ids=("restart", "advance"))
def test_who_changes_it_waits_for_who_is_changing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: Callable[[SharedSerial], None]
) -> None:
    """A writer that is held up between its look and its number must not set that over a newer one."""
    serial = SharedSerial(tmp_path / "serial")
    has_looked, may_go_on, has_come = threading.Event(), threading.Event(), threading.Event()
    read, order = os.pread, list[str]()

    def dawdle(*arguments: int) -> bytes:
        found = read(*arguments)
        if threading.current_thread() is slow:
            has_looked.set()
            may_go_on.wait(30)
            order.append("slow")
        return found

    def come() -> None:
        has_come.set()
        quick(serial)
        order.append("quick")

    slow, other = threading.Thread(target=serial.advance, args=(5,)), threading.Thread(target=come)
    monkeypatch.setattr(os, "pread", dawdle)
    slow.start()
    assert has_looked.wait(30)
    other.start()
    assert has_come.wait(30)
    # Whoever needs no lock is through by now.
    other.join(0.2)
    may_go_on.set()
    slow.join()
    other.join()
    assert order == ["slow", "quick"]
    assert serial.value == 7

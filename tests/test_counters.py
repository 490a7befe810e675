"""What is counted: every process its own row, and the sums of all."""

import os

import pytest

from pypiserver_ng.counters import Board, Counters


@pytest.mark.parametrize(
    ("method", "status", "counted"),
    (
        ("GET", 200, ("GET", "200")),
        ("HEAD", 304, ("HEAD", "304")),
        ("POST", 507, ("POST", "507")),
        # What clients make up does not make the table longer.
        ("DELETE", 405, ("other", "405")),
        ("get", 404, ("other", "404")),
        ("", 431, ("other", "431")),
        ("GET", 418, ("GET", "4xx")),
        ("GET", 299, ("GET", "2xx")),
        ("GET", 100, ("GET", "1xx")),
        ("other", 511, ("other", "5xx")),
        ("GET", 999, ("GET", "5xx")),
        ("GET", 0, ("GET", "1xx")),
    ),
)
def test_where_an_answer_is_counted(method: str, status: int, counted: tuple[str, str]) -> None:
    """One that the application gave, and one that it was not asked for."""
    board = Board()
    counters = Counters(board)
    counters.count_answer(method, status)
    assert (board.add_up().answers, board.add_up().answers_from_memory) == ({counted: 1}, 0)
    counters.cells[counters.cell_from_memory(method, status)] += 1
    assert (board.add_up().answers, board.add_up().answers_from_memory) == ({counted: 2}, 1)


def test_rows_are_added_up() -> None:
    """Every row is one process's own."""
    board = Board(3)
    for seat in range(3):
        counters = Counters(board, seat)
        counters.start()
        counters.note_connections(10 + seat)
        for _ in range(seat + 1):
            counters.count_answer("GET", 200)
        counters.count_answer("HEAD", 404)
    totals = board.add_up()
    assert (totals.workers, totals.connections) == (3, 33)
    assert totals.answers == {("GET", "200"): 6, ("HEAD", "404"): 3}
    assert totals.resident > 0
    assert totals.cpu_seconds > 0


def test_who_takes_a_seat_continues_its_row() -> None:
    """What a process did remains; what it was ends with it."""
    board = Board(2)
    first = Counters(board, 1)
    first.start()
    first.count_answer("GET", 200)
    first.note_connections(5)
    before = board.add_up()
    board.vacate(1)
    between = board.add_up()
    assert (between.workers, between.connections, between.resident) == (0, 0, 0)
    assert (between.answers, between.cpu_seconds) == (before.answers, before.cpu_seconds)
    second = Counters(board, 1)
    second.start()
    second.count_answer("GET", 200)
    after = board.add_up()
    assert (after.workers, after.answers) == (1, {("GET", "200"): 2})
    assert after.cpu_seconds > before.cpu_seconds


@pytest.mark.parametrize(
    ("own", "opening", "others", "expected"),
    (
        (0, 0, (0,), False),
        (1, 0, (0,), True),
        (0, 1, (0,), True),
        (1, 0, (1, 5), False),
        (2, 0, (9, 1), True),
        (7, 1, (7,), True),
        # An eighth more is not worth waiting for.
        (9, 0, (8,), False),
        (10, 0, (8,), True),
        (112, 0, (100,), False),
        (113, 0, (100,), True),
    ),
)
def test_who_has_a_share_of_the_connections(own: int, opening: int, others: tuple[int, ...], expected: bool) -> None:
    """Who serves and has fewer is to take the next; a seat that is empty takes nothing."""
    board = Board(len(others) + 2)
    counters, *more = [Counters(board, seat) for seat in range(len(others) + 1)]
    for one, number in zip((counters, *more), (own, *others), strict=True):
        one.start()
        one.note_connections(number)
    assert counters.is_one_of_several
    assert counters.has_its_share(opening) is expected


def test_a_forked_process_counts_on_the_same_board() -> None:
    """At once, for everybody."""
    board = Board(2)
    pid = os.fork()
    if pid == 0:
        Counters(board, 1).count_answer("POST", 200)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert board.add_up().answers == {("POST", "200"): 1}

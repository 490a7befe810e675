"""What this room tells of its answers and connections, to whoever counts them."""

from typing import Protocol


class Counting(Protocol):
    """Is called on the event loop, and waits for nothing."""

    #: Numbers that may be raised in place.
    cells: memoryview

    @property
    def is_one_of_several(self) -> bool:
        """Whether other processes take connections from the same socket."""

    def has_its_share(self, opening: int) -> bool:
        """Whether another process should take the next connection; `opening` are taken and not noted yet."""

    def start(self) -> None:
        """Connections are taken from now on."""

    def count_answer(self, method: str, status: int) -> None:
        """An answer that is being sent, also to what was no request: then the method is empty."""

    def cell_from_memory(self, method: str, status: int) -> int:
        """Which of `cells` to raise by one for each answer that the application was not asked for."""

    def note_connections(self, number: int) -> None:
        """How many are open now."""

    def refresh(self) -> None:
        """About a second has passed."""


class Uncounted:
    """For a server that is alone and whose numbers nobody asks for."""

    is_one_of_several: bool = False

    def __init__(self) -> None:
        self.cells = memoryview(bytearray(8)).cast("Q")

    def has_its_share(self, opening: int) -> bool:
        return False

    def start(self) -> None:
        pass

    def count_answer(self, method: str, status: int) -> None:
        pass

    def cell_from_memory(self, method: str, status: int) -> int:
        return 0

    def note_connections(self, number: int) -> None:
        pass

    def refresh(self) -> None:
        pass

"""What every group of measurements is given: where it may write, how often it measures, and whose turn it is."""

import fcntl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.load import Speed
from benchmarks.peers import empty
from benchmarks.processes import Contestant
from benchmarks.table import Aim, Line, write_amount


@dataclass(frozen=True, slots=True)
class Bench:
    """`home` survives from run to run; `lock` is a file that others who measure on this machine lock too."""

    home: Path
    rounds: int
    seconds: float
    lock: Path | None

    @contextmanager
    def turn(self) -> Iterator[None]:
        """The machine for ourselves, as far as others agree."""
        if self.lock is None:
            yield
            return
        with self.lock.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def scratch(self, name: str) -> Path:
        """An empty directory."""
        return empty(self.home / "data" / name)

    def compare(self, contestants: Sequence[Contestant], measure: Callable[[Contestant], Speed]) -> dict[str, Speed]:
        """The median of each, measured in turn, the others standing still: a noisy minute is everybody's."""
        found: dict[str, list[Speed]] = {contestant.name: [] for contestant in contestants}
        for contestant in contestants:
            contestant.settle()
        for _ in range(self.rounds):
            with self.turn():
                for contestant in contestants:
                    with contestant.alone(contestants):
                        found[contestant.name].append(measure(contestant))
        return {name: take_median(speeds) for name, speeds in found.items()}

    def repeat(self, measure: Callable[[], float]) -> float:
        """The median of several."""
        found = []
        for _ in range(self.rounds):
            with self.turn():
                found.append(measure())
        return median(found)


def take_median(speeds: Sequence[Speed]) -> Speed:
    return Speed(median(speed.per_second for speed in speeds), median(speed.per_cpu_second for speed in speeds))


def line_up(work: str, speeds: Mapping[str, Speed], ours: str, other: str, unit: str, aim: float | None = None) -> Line:
    """Two contestants of one comparison as a line of the table."""
    one, two = speeds[ours], speeds[other]
    return Line(
        work,
        write_amount(one.per_second, unit),
        f"{other}: {write_amount(two.per_second, unit)}",
        one.per_second / two.per_second,
        "×",
        None if aim is None else Aim(aim),
        one.per_cpu_second / two.per_cpu_second,
    )

"""Patterns of project names, and what they stand for. Knows no rule."""

import fnmatch
import re
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")

_SPECIAL = frozenset("*?[")


def is_plain(glob: str) -> bool:
    """Whether it matches itself and nothing else."""
    return _SPECIAL.isdisjoint(glob)


class Patterns(Generic[T]):
    """Values by patterns of normalized names, in the order in which they were given.

    Plain names are looked up, because lists of thousands of them are usual.
    """

    def __init__(self, pairs: Iterable[tuple[str, T]]) -> None:
        self._names: dict[str, list[tuple[int, T]]] = {}
        self._globs: list[tuple[int, Callable[[str], object], T]] = []
        for number, (glob, value) in enumerate(pairs):
            if is_plain(glob):
                self._names.setdefault(glob, []).append((number, value))
            else:
                self._globs.append((number, re.compile(fnmatch.translate(glob)).match, value))

    def find_all(self, name: str) -> list[T]:
        found = [(number, value) for number, match, value in self._globs if match(name)]
        found += self._names.get(name, ())
        return [value for _, value in sorted(found, key=lambda pair: pair[0])]

    def find(self, name: str) -> T | None:
        """What the first pattern that matches stands for."""
        return next(iter(self.find_all(name)), None)

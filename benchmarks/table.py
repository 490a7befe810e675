"""Figures become a table for people. Pure: no clock, no file, no process.

A line compares one amount of ours with one of somebody else's, or with a limit that stands on its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Aim:
    """What was set out for: at least or at most so much."""

    amount: float
    at_most: bool = False

    def holds(self, got: float) -> bool:
        return got <= self.amount if self.at_most else got >= self.amount


@dataclass(frozen=True, slots=True)
class Line:
    """`got` is in `unit`; `by_cpu` is the same ratio by the processor time that the servers used."""

    work: str
    ours: str
    beside: str
    got: float
    unit: str = "×"
    aim: Aim | None = None
    by_cpu: float | None = None

    @property
    def holds(self) -> bool | None:
        return None if self.aim is None else self.aim.holds(self.got)


@dataclass(frozen=True, slots=True)
class Bars:
    """One picture: who did how much."""

    title: str
    amounts: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Section:
    """What one group of measurements found. `notes` say how."""

    title: str
    lines: Sequence[Line]
    notes: Sequence[str] = ()
    bars: Sequence[Bars] = ()
    commit: str = ""


def write_amount(amount: float, unit: str = "") -> str:
    """Three digits that count, thousands grouped: 112,000 or 1.32."""
    digits = 0 if amount >= 100 else 1 if amount >= 10 else 2
    scale = 10 ** max(len(str(int(amount))) - 3, 0)
    rounded = round(amount / scale) * scale if digits == 0 else amount
    return f"{rounded:,.{digits}f}{'' if unit in {'', '×'} else ' '}{unit}"


def write_aim(line: Line) -> str:
    if line.aim is None:
        return ""
    return f"{'≤' if line.aim.at_most else '≥'} {write_amount(line.aim.amount, line.unit)}"


_VERDICTS = {True: "yes", False: "**no**", None: ""}


def write_markdown(sections: Sequence[Section], facts: Mapping[str, str]) -> str:
    """The facts of the machine, then a table for each section."""
    parts = ["| machine | |\n|---|---|\n" + "".join(f"| {name} | {value} |\n" for name, value in facts.items())]
    for section in sections:
        rows = "".join(_write_row(line) for line in section.lines)
        head = "| work | ours | beside | measured | by CPU | aim | reached |\n|---|---|---|---|---|---|---|\n"
        notes = "".join(f"- {note}\n" for note in section.notes)
        stamp = f"Measured with {section.commit}.\n\n" if section.commit else ""
        parts.append(f"### {section.title}\n\n{stamp}{head}{rows}\n{notes}")
    return "\n".join(parts)


def _write_row(line: Line) -> str:
    by_cpu = "" if line.by_cpu is None else write_amount(line.by_cpu, "×")
    cells = [line.work, line.ours, line.beside, write_amount(line.got, line.unit), by_cpu, write_aim(line)]
    return f"| {' | '.join([*cells, _VERDICTS[line.holds]])} |\n"


def write_text(section: Section) -> str:
    """The same for a terminal, one line a comparison."""
    lines = [section.title]
    for line in section.lines:
        by_cpu = "" if line.by_cpu is None else f" (by CPU {write_amount(line.by_cpu, '×')})"
        verdict = "" if line.holds is None else "  ok" if line.holds else "  NOT REACHED"
        got = write_amount(line.got, line.unit)
        beside = f"; {line.beside}" if line.beside else ""
        lines.append(f"  {line.work}: {line.ours}{beside}: {got}{by_cpu} {write_aim(line)}{verdict}")
    return "\n".join(lines)


def replace_figures(page: str, figures: str, name: str = "figures") -> str:
    """The page with these figures between its two marks."""
    begin, end = f"<!-- {name}: written by the benchmarks -->", f"<!-- end of {name} -->"
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"the page lacks {begin!r} or {end!r}")
    return f"{before}{begin}\n\n{figures}\n{end}{after}"


def encode_section(section: Section) -> dict[str, Any]:
    """As JSON has it."""
    return asdict(section)


def decode_section(content: Mapping[str, Any]) -> Section:
    lines = [Line(**{**line, "aim": Aim(**line["aim"]) if line["aim"] else None}) for line in content["lines"]]
    bars = [Bars(**one) for one in content["bars"]]
    return Section(content["title"], lines, content["notes"], bars, content["commit"])

"""Everything that is measured, side by side with those it is compared with: ``make bench``.

``make bench ARGS="pages uploads"`` measures these groups only. The table and the plot in the documentation show what
was measured last of each group.
"""

import argparse
import importlib
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

from benchmarks import machine, plot, table
from benchmarks.bench import Bench
from benchmarks.environments import PEERS, provide_peer, provide_programs
from benchmarks.load import LoadFailedError

_GROUPS = ("pages", "downloads", "uploads", "starts", "roots", "workers")
_FACTS = "machine.json"
_PAGE = machine.ROOT / "docs" / "performance.md"
_PLOT = machine.ROOT / "docs" / "img" / "performance.svg"


def main() -> None:
    options = _read_options()
    bench = Bench(options.home.resolve(), options.rounds, options.seconds, options.lock)
    bench.home.mkdir(parents=True, exist_ok=True)
    if options.docs_only:
        _write_docs(bench.home / "results")
        return
    provide_programs()
    for name in PEERS:
        provide_peer(name, bench.home)
    facts = machine.describe(bench.home)
    print("\n".join(f"{name}: {value}" for name, value in facts.items()))
    results = bench.home / "results"
    results.mkdir(exist_ok=True)
    (results / _FACTS).write_text(json.dumps(facts, indent=1))
    failures = [name for name in options.groups or _GROUPS if not _measure(name, bench)]
    if not options.keep_docs:
        _write_docs(results)
    if failures:
        sys.exit(f"not measured: {', '.join(failures)}")


def _read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench ARGS=…", description=__doc__)
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of {', '.join(_GROUPS)}; default: all")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each, of which the median counts")
    parser.add_argument("--seconds", type=float, default=3, help="how long one of them takes")
    parser.add_argument("--home", type=Path, default=machine.ROOT / ".bench", help="peers, files and results")
    parser.add_argument("--lock", type=Path, help="a file that is locked while something is measured")
    parser.add_argument("--docs-only", action="store_true", help="show what was measured before; measure nothing")
    parser.add_argument("--keep-docs", action="store_true", help="print only; leave the documentation as it is")
    options = parser.parse_args()
    if unknown := set(options.groups) - set(_GROUPS):
        parser.error(f"unknown group {min(unknown)!r}; there are {', '.join(_GROUPS)}")
    return options


def _measure(name: str, bench: Bench) -> bool:
    """Measure one group, print it and keep it for the documentation. One that fails costs only itself."""
    print(f"\nmeasuring {name} …", file=sys.stderr)
    try:
        section = importlib.import_module(f"benchmarks.groups.{name}").measure(bench)
    except LoadFailedError as fault:
        print(f"{name}: {fault}", file=sys.stderr)
        return False
    load = f"load of the machine {os.getloadavg()[0]:.1f}"
    section = replace(section, commit=f"{machine.describe_commit()}; medians of {bench.rounds}; {load}")
    print(table.write_text(section), flush=True)
    (bench.home / "results" / f"{name}.json").write_text(json.dumps(table.encode_section(section), indent=1))
    return True


def _write_docs(results: Path) -> None:
    facts = json.loads((results / _FACTS).read_text())
    found = [results / f"{name}.json" for name in _GROUPS]
    sections = [table.decode_section(json.loads(path.read_text())) for path in found if path.exists()]
    _PAGE.write_text(table.replace_figures(_PAGE.read_text(), table.write_markdown(sections, facts)))
    _PLOT.parent.mkdir(parents=True, exist_ok=True)
    _PLOT.write_text(plot.draw([picture for section in sections for picture in section.bars]))
    print(f"\n{_PAGE.relative_to(machine.ROOT)} and {_PLOT.relative_to(machine.ROOT)} show this", file=sys.stderr)


if __name__ == "__main__":
    main()

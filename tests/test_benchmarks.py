"""What the benchmarks write down: figures are read, compared and shown rightly. Nothing is timed."""

import json
import re
import zipfile
from io import BytesIO
from pathlib import Path
from string import Template
from xml.etree import ElementTree as ET

import pytest

from benchmarks import corpus, plot, scale, table
from benchmarks.bench import line_up, take_median
from benchmarks.load import LoadFailedError, Speed, parse_wrk
from benchmarks.table import Aim, Bars, Line, Section, write_amount
from pypiserver_ng.archive.inspector import Inspector
from pypiserver_ng.filenames import parse_upload

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "performance.md"

WRK = """\
Running 3s test @ http://127.0.0.1:8080/simple/demo/
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   392.73us  128.02us   4.46ms   91.30%
    Req/Sec    80.12k     5.58k   91.01k    73.33%
  239168 requests in 3.00s, 0.90GB read
Requests/sec:  79709.38
Transfer/sec:    308.36MB
"""


def test_wrk_is_read() -> None:
    """Its requests a second."""
    assert parse_wrk(WRK) == 79709.38


@pytest.mark.parametrize(
    "output",
    (
        WRK.replace("79709.38", "0.00"),
        WRK.replace("Requests/sec", "  Non-2xx or 3xx responses: 239168\nRequests/sec"),
        "unable to connect to 127.0.0.1:8080 Connection refused\n",
    ),
    ids=("nothing", "failures", "no server"),
)
def test_failures_are_no_speed(output: str) -> None:
    """A server that is quick at failing is not quick."""
    with pytest.raises(LoadFailedError):
        parse_wrk(output)


@pytest.mark.parametrize(
    ("amount", "unit", "text"),
    (
        (112_345.6, "/s", "112,000 /s"),
        (1_849, "MB/s", "1,850 MB/s"),
        (517.4, "MB/s", "517 MB/s"),
        (44.87, "/s", "44.9 /s"),
        (1.3, "×", "1.30×"),
        (0.046, "s", "0.05 s"),
    ),
)
def test_amounts_have_three_digits(amount: float, unit: str, text: str) -> None:
    """More would be noise."""
    assert write_amount(amount, unit) == text


@pytest.mark.parametrize(
    ("aim", "got", "holds"),
    (
        (Aim(1.3), 1.3, True),
        (Aim(1.3), 1.29, False),
        (Aim(2, at_most=True), 2, True),
        (Aim(2, at_most=True), 2.1, False),
    ),
)
def test_aims_are_reached_or_not(aim: Aim, got: float, holds: bool) -> None:
    """What is set out for counts, to both sides."""
    assert Line("work", "", "", got, aim=aim).holds is holds


def test_contestants_are_compared_by_the_clock_and_by_their_processor() -> None:
    """Ours divided by the other's, both ways, after the median of each."""
    speeds = {
        "ours": take_median([Speed(50, 90), Speed(200, 60), Speed(100, 80)]),
        "nginx": take_median([Speed(50, 100)]),
    }
    line = line_up("page", speeds, "ours", "nginx", "/s", 1.3)
    assert (line.got, line.by_cpu, line.holds) == (2.0, 0.8, True)
    assert (line.ours, line.beside) == ("100 /s", "nginx: 50.0 /s")


LOST = Section(
    "Pages",
    (
        Line("page", "100 /s", "nginx: 50 /s", 2.0, aim=Aim(1.3), by_cpu=1.9),
        Line("large page", "10 /s", "nginx: 20 /s", 0.5, aim=Aim(0.95)),
        Line("memory", "71 MiB", "", 71, "MiB", Aim(70, at_most=True)),
        Line("page", "100 /s", "proxpi: 1 /s", 100.0),
    ),
    ("how",),
    (Bars("Requests <&>", {"ours": 100.0, "nginx": 50.0}),),
    "1.0, commit 1234567",
)


def test_the_table_says_where_a_peer_wins() -> None:
    """What was not reached stands out, and what has no aim claims none."""
    written = table.write_markdown([LOST], {"Processor": "two cores"})
    assert "| Processor | two cores |" in written
    assert "| page | 100 /s | nginx: 50 /s | 2.00× | 1.90× | ≥ 1.30× | yes |" in written
    assert "| large page | 10 /s | nginx: 20 /s | 0.50× |  | ≥ 0.95× | **no** |" in written
    assert "| memory | 71 MiB |  | 71.0 MiB |  | ≤ 70.0 MiB | **no** |" in written
    assert "| page | 100 /s | proxpi: 1 /s | 100× |  |  |  |" in written
    assert "- how\n" in written
    assert "commit 1234567" in written


def test_the_terminal_says_the_same() -> None:
    """One line a comparison."""
    assert table.write_text(LOST).count("NOT REACHED") == 2


def test_results_survive_on_the_disk() -> None:
    """A group that is not measured again is shown as it was."""
    kept = table.decode_section(json.loads(json.dumps(table.encode_section(LOST))))
    assert table.write_markdown([kept], {}) == table.write_markdown([LOST], {})


def test_figures_replace_those_before() -> None:
    """Between their own marks only, and again."""
    page = "a\n<!-- growth: written by the benchmarks -->\nold\n<!-- end of growth -->\nb\n"
    once = table.replace_figures(page, "new\n", "growth")
    assert once == table.replace_figures(once, "new\n", "growth")
    assert once.startswith("a\n")
    assert once.endswith("\nb\n")
    assert "old" not in once
    with pytest.raises(ValueError, match="lacks"):
        table.replace_figures(page, "new\n")


def test_growth_has_a_column_for_each_size() -> None:
    """In the order they were measured."""
    written = scale.write_growth({10: {"page": (1.5, "ms")}, 100: {"page": (2.5, "ms")}})
    assert written.splitlines() == ["| work | 10 files | 100 files |", "|---|---|---|", "| page | 1.50 ms | 2.50 ms |"]


def test_the_plot_is_an_image_for_light_and_dark() -> None:
    """Valid SVG, the longest bar for the most, names escaped."""
    drawn = plot.draw(LOST.bars)
    image = ET.fromstring(drawn)
    widths = [float(bar.attrib["width"]) for bar in image.iter("{http://www.w3.org/2000/svg}rect")]
    assert widths[0] == 2 * widths[1]
    assert "prefers-color-scheme: dark" in drawn


def test_the_documentation_shows_what_is_measured() -> None:
    """The plot, and a place for each table."""
    page = PAGE.read_text()
    assert "](img/performance.svg)" in page
    for name in ("figures", "growth"):
        assert table.replace_figures(page, "x", name) != page


def test_every_group_is_documented() -> None:
    """By the name that `make bench` takes."""
    groups = {path.stem for path in (ROOT / "benchmarks" / "groups").glob("*.py")}
    listed = re.search(r"measures these groups only: (.+?)\.", PAGE.read_text(), re.DOTALL)
    assert listed is not None
    assert set(re.findall(r"`(\w+)`", listed[1])) == groups


def test_nginx_is_configured_with_what_is_filled_in() -> None:
    """Nothing else in its configuration is taken for a blank."""
    blanks = Template((ROOT / "benchmarks" / "nginx.conf").read_text()).get_identifiers()
    assert set(blanks) == {"user", "home", "type", "port", "root", "extra"}


def test_wheels_made_by_hand_are_wheels(tmp_path: Path) -> None:
    """The program takes them, so what is measured is the work of taking them."""
    wheel = corpus.build_wheel("bench-page", "1.0", b"x" * 1000)
    with zipfile.ZipFile(BytesIO(wheel.content)) as archive:
        assert archive.testzip() is None
    inspector = Inspector()
    try:
        metadata = inspector.inspect_upload(wheel.write(tmp_path), parse_upload(wheel.filename))
    finally:
        inspector.close()
    assert b"Name: bench-page\n" in metadata

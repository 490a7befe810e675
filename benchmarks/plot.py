"""Bars become an SVG that reads well on a light and on a dark page. Pure."""

from collections.abc import Sequence
from html import escape

from benchmarks.table import Bars, write_amount

_WIDTH, _LEFT, _RIGHT, _ROW, _BAR = 720, 110, 90, 24, 14
_STYLE = """\
  <style>
    text { font: 13px system-ui, sans-serif; fill: #24292f; }
    .title { font-weight: 600; }
    .ours { fill: #0969da; }
    .other { fill: #8c959f; }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3; }
      .ours { fill: #4493f8; }
      .other { fill: #656d76; }
    }
  </style>
"""


def draw(pictures: Sequence[Bars]) -> str:
    """Every picture below the one before, each with a scale of its own that begins at nothing."""
    parts: list[str] = []
    top = 0
    for picture in pictures:
        parts.append(f'  <text class="title" x="0" y="{top + 17}">{escape(picture.title)}</text>\n')
        top += _ROW + 4
        most = max(picture.amounts.values())
        for name, amount in sorted(picture.amounts.items(), key=lambda item: -item[1]):
            parts.append(_draw_bar(name, amount, amount / most, top))
            top += _ROW
        top += _ROW // 2
    names = escape(", ".join(picture.title for picture in pictures))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top}" role="img" aria-label="{names}">\n'
    return f"{head}{_STYLE}{''.join(parts)}</svg>\n"


def _draw_bar(name: str, amount: float, share: float, top: int) -> str:
    width = max(share * (_WIDTH - _LEFT - _RIGHT), 1)
    kind = "ours" if name.startswith("ours") else "other"
    middle = top + _ROW - 7
    return (
        f'  <text x="{_LEFT - 8}" y="{middle}" text-anchor="end">{escape(name)}</text>\n'
        f'  <rect class="{kind}" x="{_LEFT}" y="{top + 5}" width="{width:.1f}" height="{_BAR}" rx="2"/>\n'
        f'  <text x="{_LEFT + width + 8:.1f}" y="{middle}">{write_amount(amount)}</text>\n'
    )

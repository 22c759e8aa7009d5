"""The figures as an SVG picture: a bar a measured row, on a logarithmic scale, beside a tick at what was promised."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

_WIDTH, _LEFT, _STEP, _TOP = 920, 400, 44, 64
_MET, _MISSED, _INK, _FAINT = "#238541", "#cf3434", "#1f2328", "#8a929d"
_LEAST, _MOST = 0.1, 1000.0


def draw(found: Mapping[str, Any]) -> str:
    """A whole SVG file, without scripts."""
    rows = [row for row in found["rows"] if "ratio" in row]
    height = _TOP + _STEP * max(len(rows), 1) + 36
    title = f"Speed at commit {found['commit']}, {found['date']}: {found['machine']['cpu']}"
    body = [*_scale(height), *(part for n, row in enumerate(rows) for part in _bar(row, _TOP + _STEP * n))]
    if not rows:
        body.append(_text(20, _TOP + 20, "No row was measured yet", _FAINT))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="13">\n<title>{escape(title)}</title>\n'
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>\n'
        + "\n".join([_text(20, 28, title, _INK), *body]) + "\n</svg>\n"
    )  # fmt: skip


def _x(ratio: float) -> float:
    share = math.log(min(max(ratio, _LEAST), _MOST) / _LEAST) / math.log(_MOST / _LEAST)
    return _LEFT + share * (_WIDTH - _LEFT - 90)


def _text(x: float, y: float, words: str, colour: str, more: str = "") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" fill="{colour}" {more}>{escape(words)}</text>'


def _scale(height: int) -> Sequence[str]:
    parts = []
    for ratio in (0.1, 1.0, 10.0, 100.0, 1000.0):
        x = _x(ratio)
        parts += [
            f'<line x1="{x:.0f}" y1="{_TOP - 12}" x2="{x:.0f}" y2="{height - 30}" stroke="#e1e4e8"/>',
            _text(x, height - 14, f"{ratio:g}×", _FAINT, 'text-anchor="middle" font-size="11"'),
        ]
    return parts


def _bar(row: Mapping[str, Any], y: int) -> Sequence[str]:
    one, end, promised = _x(1.0), _x(row["ratio"]), re.search(r"[≥≤] ([\d.]+)", row["bar"])
    colour = _MET if row["met"] else _MISSED
    parts = [
        _text(20, y + 12, row["what"], _INK),
        _text(20, y + 28, f"against {row['against']}", _FAINT, 'font-size="11"'),
        f'<rect x="{min(one, end):.1f}" y="{y}" width="{max(abs(end - one), 2):.1f}" height="20" fill="{colour}"/>',
        _text(max(one, end) + 6, y + 15, f"{row['ratio']:.2f}", _INK),
    ]
    if promised and "MB" not in row["bar"]:
        tick = _x(float(promised[1]))
        parts.append(
            f'<line x1="{tick:.1f}" y1="{y - 4}" x2="{tick:.1f}" y2="{y + 24}" stroke="{_INK}" stroke-width="2"/>'
        )
    return parts

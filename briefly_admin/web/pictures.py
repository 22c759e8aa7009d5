"""Pictures drawn on the server: SVG files by pygal, that a page shows as images beside a text alternative."""

from collections.abc import Sequence
from typing import Final
from xml.etree.ElementTree import Element, SubElement, tostring

import pygal
from flask import Blueprint, Response, g
from flask.typing import ResponseReturnValue
from pygal.style import Style

from briefly_admin.domain.permissions import Permission
from briefly_admin.services.access import polled, requires
from briefly_admin.services.views import ThroughputPoint
from briefly_admin.web import formats
from briefly_admin.web.identity import services

blueprint: Final = Blueprint("pictures", __name__)
_MOST_POINTS: Final = 240
_LONGEST_GAP: Final = 30.0
"""Seconds between two points; what is longer was a pause."""
_SVG: Final = "http://www.w3.org/2000/svg"
_STYLE: Final = Style(
    background="white", plot_background="white", foreground="#4a4f57", foreground_strong="#1f2328",
    foreground_subtle="#8a929d", colors=("#0667c2", "#238541", "#b7790a", "#8250df", "#cf3434", "#0a7d8c"),
    opacity=".25", opacity_hover=".25", font_family="system-ui, sans-serif", label_font_size=12,
    major_label_font_size=12, legend_font_size=13, no_data_font_size=14, stroke_width=2, transition="0s",
    guide_stroke_color="#e1e4e8", major_guide_stroke_color="#e1e4e8", guide_stroke_dasharray="0",
    major_guide_stroke_dasharray="0",
)  # fmt: skip


@blueprint.get("/runs/<run_id>/throughput.svg")
@requires(Permission.READ)
@polled
def throughput(run_id: str) -> ResponseReturnValue:
    """Rows a second over time, a colour a phase."""
    drawn = draw_throughput(services().runs.throughput(g.actor, run_id))
    return Response(drawn, mimetype="image/svg+xml", headers={"Cache-Control": "private, max-age=60"})


def draw_throughput(points: Sequence[ThroughputPoint]) -> bytes:
    """The chart as an SVG file without scripts."""
    chart = pygal.XY(
        width=1200, height=220, style=_STYLE, js=(), show_dots=False, fill=True, include_x_axis=True,
        range=(0, max([10.0, *(point.rate for point in points)])), show_x_guides=False, legend_at_bottom=True,
        legend_box_size=10, margin=12, spacing=12, max_scale=5, x_value_formatter=formats.duration,
        value_formatter="{:,.0f}/s".format, no_data_text="No rows were measured yet", truncate_legend=-1,
    )  # fmt: skip
    for phase, line in _lines(_thinned(points)).items():
        chart.add(phase.capitalize(), line)
    return _without_scripts(chart.render_tree())


def describe(points: Sequence[ThroughputPoint]) -> str:
    """What the picture shows, for those who do not see it."""
    if not points:
        return "Throughput over time: no rows were measured yet."
    rates = [point.rate for point in points]
    mean = sum(rates) / len(rates)
    return (
        f"Throughput over time: at most {max(rates):,.0f} rows a second, {mean:,.0f} on average, "
        f"over {formats.duration(_worked(points))} of work."
    )


def _worked(points: Sequence[ThroughputPoint]) -> float:
    return max(since for line in _lines(points).values() for since, _ in line)


def _thinned(points: Sequence[ThroughputPoint]) -> Sequence[ThroughputPoint]:
    """Each nth point, and the last: more than the picture has pixels for says nothing."""
    step = len(points) // _MOST_POINTS + 1
    return [*points[:-1:step], *points[-1:]]


def _lines(points: Sequence[ThroughputPoint]) -> dict[str, list[tuple[float, float]]]:
    """Phase → (seconds at work, rows a second); each begins where the one before it ended. Pauses are cut out."""
    lines: dict[str, list[tuple[float, float]]] = {}
    worked, before = 0.0, points[0].at if points else None
    for point in points:
        since = worked + min((point.at - (before or point.at)).total_seconds(), _LONGEST_GAP)
        lines.setdefault(point.phase, [(worked, point.rate)]).append((since, point.rate))
        worked, before = since, point.at
    return lines


def _without_scripts(tree: Element) -> bytes:
    for parent in list(tree.iter()):
        for child in [child for child in parent if str(child.tag).rpartition("}")[2] == "script"]:
            parent.remove(child)
    if tree.find(f"{{{_SVG}}}title") is None and tree.find("title") is None:
        SubElement(tree, "title").text = "Throughput"
    drawn: bytes = tostring(tree, encoding="utf-8")
    return drawn

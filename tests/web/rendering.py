"""Templates rendered as strictly as can be, without an app, and their elements to look at."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from briefly_admin.web import formats

ROOT = Path(__file__).resolve().parents[2]
NOW = datetime(2025, 11, 22, 15, 0, tzinfo=UTC)
HOSTILE = "<script>alert(1)</script>\" onload='x'"
VOID = {"meta", "link", "input", "img", "br", "hr"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str | None]
    text: str = ""
    ancestors: list["Element"] = field(default_factory=list)


class Page(HTMLParser):
    """All elements of some HTML in order; fails where tags are not closed in the order they were opened."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.all: list[Element] = []
        self._open: list[Element] = []
        self.feed(html)
        assert not self._open, f"not closed: {[element.tag for element in self._open]}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs), ancestors=list(self._open))
        self.all.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.text += data

    def every(self, tag: str, **attributes: str) -> list[Element]:
        wanted = {name.strip("_").replace("_", "-"): value for name, value in attributes.items()}
        return [e for e in self.all if e.tag == tag and wanted.items() <= e.attributes.items()]

    def one(self, tag: str, **attributes: str) -> Element:
        found = self.every(tag, **attributes)
        assert len(found) == 1, f"{len(found)} × <{tag} {attributes}>"
        return found[0]


def strict_environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(ROOT / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(formats.filters(lambda: NOW))
    environment.globals.update(
        url_for=lambda endpoint, filename: f"/{endpoint}/{filename}",
        csrf_token=lambda: "a-token",
        get_flashed_messages=lambda **_: [("error", HOSTILE), ("success", "Paused.")],
    )
    return environment

"""The README as its tests read it: commands, tables, code words."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
README = (ROOT / "README.md").read_text()
GUIDE = (ROOT / "docs" / "guide.md").read_text()
_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_EXIT = re.compile(r"#.*exits with (\d+)")


@dataclass(frozen=True)
class Command:
    """A command of a shell block as printed, and the exit code that its comment promises."""

    text: str
    code: int

    @property
    def curls(self) -> bool:
        return self.text.startswith("curl ")


def commands(text: str = README) -> list[Command]:
    """Every command of the shell blocks, in order; a command ends with the line that a shell takes for its end."""
    found = []
    for block in _BLOCK.findall(text):
        lines: list[str] = []
        for line in block.splitlines():
            lines.append(line)
            whole = "\n".join(lines)
            if not whole.strip() or whole.endswith("\\") or not _is_closed(whole):
                continue
            exits = _EXIT.search(line)
            found.append(Command(whole.strip(), int(exits[1]) if exits else 0))
            lines = []
        assert not "".join(lines).strip(), f"an unfinished command: {lines}"
    return found


def _is_closed(text: str) -> bool:
    """Whether all quotes are, and a loop has its end."""
    try:
        words = shlex.split(text.replace("\\\n", " "), comments=True)
    except ValueError:
        return False
    return words[:1] not in (["until"], ["while"], ["for"]) or words[-1] == "done"


def section(text: str, title: str) -> str:
    """What stands below a heading, up to the next one of the same or a higher level."""
    found = re.search(rf"^(#+) {re.escape(title)}$\n", text, re.MULTILINE)
    assert found, f"there is no heading '{title}'"
    return re.split(rf"^#{{1,{len(found[1])}}} ", text[found.end() :], maxsplit=1, flags=re.MULTILINE)[0]


def table(text: str, first: str) -> list[list[str]]:
    """The rows of the table whose first column has this heading."""
    found = re.search(rf"^\| {re.escape(first)} \|.*\n\|[-|]+\|\n((?:\|.*\n?)+)", text, re.MULTILINE)
    assert found, f"there is no table of '{first}'"
    return [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in found[1].splitlines()]


def code(text: str) -> list[str]:
    """The code words of a text."""
    return re.findall(r"`([^`\n]+)`", text)

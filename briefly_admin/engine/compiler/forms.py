"""The usual written forms of numbers, dates, addresses: narrower than what Python's parsers read."""

import re
from typing import Final

UUID: Final = "^[0-9A-Fa-f]{8}-([0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}$"
ANY_UUID: Final = "^([0-9A-Fa-f]{8}-([0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}|[0-9A-Fa-f]{32})$"
INTEGER: Final = "^-?[0-9]+$"
SIGNED: Final = "^[-+]?[0-9]+$"
DECIMAL: Final = r"^[-+]?[0-9]+(\.[0-9]+)?$"
REAL: Final = r"^[-+]?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]{1,2})?$"
SHORT: Final = r"^[-+]?[0-9]{1,8}(\.[0-9]{1,9})?$"

_YEAR: Final = "(000[1-9]|00[1-9][0-9]|0[1-9][0-9]{2}|[1-9][0-9]{3})"
_DAY: Final = (
    "((0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])|(0[13-9]|1[0-2])-(29|30)|(0[13578]|1[02])-31)"  # 29 February: Python's
)
_CLOCK: Final = r"([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{1,6})?)?"
_OFFSET: Final = r"(Z|[-+](0[0-9]|1[0-4]):[0-5][0-9])"

DATE: Final = f"^{_YEAR}-{_DAY}$"
TIME: Final = f"^{_CLOCK}$"
NAIVE: Final = f"^{_YEAR}-{_DAY}[T ]{_CLOCK}$"
AWARE: Final = f"^{_YEAR}-{_DAY}[T ]{_CLOCK}{_OFFSET}$"
MOMENT: Final = f"^{_YEAR}-{_DAY}([T ]{_CLOCK}{_OFFSET}?)?$"
RFC: Final = (
    "^((Mon|Tue|Wed|Thu|Fri|Sat|Sun), )?(0[1-9]|1[0-9]|2[0-8]) (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) "
    r"[1-9][0-9]{3} ([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9] ([+](0[0-9]|1[0-4])[0-5][0-9]|-(0[1-9]|1[0-4])[0-5][0-9])$"
)

_OCTET: Final = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_HEX: Final = "[0-9A-Fa-f]{1,4}"
_V4: Final = rf"({_OCTET}\.){{3}}{_OCTET}"
_V6: Final = (
    f"({_HEX}(:{_HEX}){{7}}|({_HEX}(:{_HEX}){{0,2}})?::({_HEX}(:{_HEX}){{0,3}})?)"  # at most seven groups beside '::'
)
_MASK4: Final = "(/(3[0-2]|[12]?[0-9]))?"
_MASK6: Final = "(/(12[0-8]|1[01][0-9]|[1-9]?[0-9]))?"
ADDRESS: Final = {4: f"^{_V4}$", 6: f"^{_V6}$", None: f"^({_V4}|{_V6})$"}
INTERFACE: Final = {4: f"^{_V4}{_MASK4}$", 6: f"^{_V6}{_MASK6}$", None: f"^({_V4}{_MASK4}|{_V6}{_MASK6})$"}

_DIRECTIVES: Final = {
    "Y": _YEAR, "m": "(0[1-9]|1[0-2])", "d": "(0[1-9]|1[0-9]|2[0-8])", "H": "([01][0-9]|2[0-3])", "M": "[0-5][0-9]",
    "S": "[0-5][0-9]", "f": "[0-9]{6}",
}  # fmt: skip


def of_format(form: str) -> str | None:
    """An expression for the fullest writing of a strptime format; None for formats of other directives."""
    parts, seen = [], set()
    for piece in re.findall("%.|[^%]|%", form, flags=re.DOTALL):
        directive = piece[1:]
        if piece == "%%":
            parts.append("%")
        elif piece[0] == "%":
            if directive not in _DIRECTIVES or directive in seen:
                return None
            seen.add(directive)
            parts.append(_DIRECTIVES[directive])
        elif piece.isascii() and piece.isprintable():
            parts.append(piece if piece.isalnum() or piece == " " else f"\\{piece}")
        else:
            return None
    return f"^{''.join(parts)}$" if seen else None

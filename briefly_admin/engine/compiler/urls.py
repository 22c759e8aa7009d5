"""The usual URLs, narrower than marshmallow's: ASCII, no name or password, no other schemes than those allowed."""

import re
from typing import Final

from briefly_admin.plans.judging import UrlForm

_LABEL: Final = "[A-Za-z0-9]+(-+[A-Za-z0-9]+)*"
LONGEST_HOST: Final = 63
"""Characters, its port and what follows without a slash included: so no label has more, which costs far less to ask."""
_HOST: Final = rf"(({_LABEL}\.)+[A-Za-z]{{2,}}|localhost|[0-9]{{1,3}}(\.[0-9]{{1,3}}){{3}})"
_LOOSE_HOST: Final = rf"({_HOST}|{_LABEL})"
_PATH: Final = "(/|[/?#][!-~]+)?"
_RELATIVE: Final = "(/|[/?#][!-9;-~]+)"
"""Without a colon: it names no scheme."""


def url_form(form: UrlForm) -> str | None:
    """An expression for URLs that surely pass; None where none is known."""
    schemes = [
        re.escape(scheme) for scheme in form.schemes if scheme != "file" and re.fullmatch("[a-z0-9.+-]+", scheme)
    ]
    choices = []
    if form.absolute and schemes:
        host = _HOST if form.require_tld else _LOOSE_HOST
        choices.append(f"({'|'.join(schemes)})://{host}(:[0-9]{{1,5}})?{_PATH}")
    if form.relative:
        choices.append(_RELATIVE)
    return f"^({'|'.join(choices)})$" if choices else None

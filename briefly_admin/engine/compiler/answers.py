"""What a compiled part says of a value."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from psycopg import sql

TRUE: Final = sql.SQL("true")
FALSE: Final = sql.SQL("false")


@dataclass(frozen=True, slots=True)
class Answer:
    """`test`: TRUE where the value surely passes; None: every value does. An exact one's FALSE (or NULL) is final."""

    test: sql.Composable | None
    exact: bool = True
    why: str = ""
    """Not empty: no value is known to pass, and this is what SQL cannot know."""

    @property
    def surely(self) -> sql.Composable:
        """The test as SQL."""
        return TRUE if self.test is None else self.test

    @property
    def is_never(self) -> bool:
        """No value passes."""
        return self.exact and self.test is FALSE


ALWAYS: Final = Answer(None)
NEVER: Final = Answer(FALSE)


def ask(why: str) -> Answer:
    """Only marshmallow knows."""
    return Answer(FALSE, exact=False, why=why)


def every(answers: Iterable[Answer]) -> Answer:
    """All of them hold."""
    told = [answer for answer in answers if answer.test is not None or not answer.exact]
    if not told:
        return ALWAYS
    if any(answer.is_never for answer in told):
        return NEVER
    why = next((answer.why for answer in told if answer.why), "")
    if why:
        return ask(why)
    if len(told) == 1:
        return told[0]
    test = sql.SQL("({})").format(sql.SQL(" AND ").join(answer.surely for answer in told))
    return Answer(test, all(answer.exact for answer in told))

from datetime import UTC, datetime, timedelta, timezone

import pytest

from briefly_admin.web import formats

NOW = datetime(2025, 11, 22, 15, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "0"),
        (999, "999"),
        (1_284_003, "1,284,003"),
        (-1200, "-1,200"),
        (2.5, "2.5"),
        (3.0, "3"),
        (21_400.4, "21,400"),
        (None, "–"),
    ],
)
def test_number(value: float | None, words: str) -> None:
    assert formats.number(value) == words


@pytest.mark.parametrize(
    ("value", "digits", "words"),
    [
        (0, 0, "0 %"),
        (0.684, 0, "68 %"),
        (0.29, 0, "29 %"),
        (0.9999, 0, "99 %"),
        (1, 0, "100 %"),
        (0.1234, 1, "12.3 %"),
        (None, 0, "–"),
    ],
)
def test_percent_never_reaches_a_hundred_too_early(value: float | None, digits: int, words: str) -> None:
    assert formats.percent(value, digits) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "0 bytes"), (1, "1 byte"), (1023, "1,023 bytes"), (1024, "1 KiB"), (1536, "1.5 KiB"), (41_943_040, "40 MiB"),
        (1024**2 - 1, "1 MiB"), (812 * 1024 + 512, "812 KiB"), (3 * 1024**3, "3 GiB"), (5000 * 1024**5, "5,000 PiB"), (None, "–"),
    ],
)  # fmt: skip
def test_bytes(value: int | None, words: str) -> None:
    assert formats.size(value) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"), (0.01, "0 s"), (0.4, "0.4 s"), (0.97, "1 s"), (1, "1 s"), (38.4, "38 s"), (59.7, "1 min"), (240, "4 min"), (252, "4 min 12 s"),
        (599.6, "10 min"), (630, "11 min"), (3599, "1 h"), (3900, "1 h 5 min"), (86_400, "24 h"), (180_000, "2 d 2 h"), (-5, "0 s"), (None, "–"),
    ],
)  # fmt: skip
def test_duration(seconds: float | None, words: str) -> None:
    assert formats.duration(seconds) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (23.4, "23 s"),
        (89, "89 s"),
        (131, "2 min"),
        (3500, "58 min"),
        (3590, "1 h"),
        (5500, "1 h 32 min"),
        (None, "–"),
    ],
)
def test_a_guess_is_rounded(seconds: float | None, words: str) -> None:
    assert formats.about(seconds) == words


@pytest.mark.parametrize(
    ("offset", "words"),
    [
        (0, "just now"), (-8, "8 s ago"), (-185, "3 min ago"), (-7300, "2 h ago"), (3 * 3600, "in 3 h"), (-31 * 3600, "31 h ago"),
        (-5 * 86_400, "5 d ago"), (90, "in 1 min"),
    ],
)  # fmt: skip
def test_relative(offset: int, words: str) -> None:
    assert formats.relative(NOW + timedelta(seconds=offset), NOW) == words


def test_a_moment_is_exact_in_utc_whatever_its_zone() -> None:
    vienna = datetime(2025, 11, 22, 14, 5, 9, tzinfo=timezone(timedelta(hours=1)))
    assert formats.moment(vienna, NOW) == formats.Moment("2025-11-22T13:05:09Z", "1 h ago", "2025-11-22 13:05:09 UTC")
    naive = vienna.astimezone(UTC).replace(tzinfo=None)
    assert formats.moment(naive, NOW) == formats.moment(vienna, NOW)


def test_the_filters_take_the_given_clock_and_unknown_values() -> None:
    filters = formats.filters(lambda: NOW)
    assert set(filters) == {"number", "percent", "bytes", "duration", "about", "moment"}
    assert filters["moment"](NOW - timedelta(hours=2)).relative == "2 h ago"
    assert filters["moment"](None) is None
    assert formats.relative(None, NOW) == "–"

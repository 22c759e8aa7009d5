"""Values near the borders of what fields and validators take, and the columns that usually hold them."""

import re
from typing import Any

from tests.engine.generated_values import Literal

WORDS = (
    "free", "pro", "Pro", "", " ", "1", "true", "null", "straße", "STRASSE", "e\u0301", "é", "a\u2028b", "abc", "漢字", "\U0001f600", "%s", "{}", "'",
    "\\", "a,b", "\0", "\ud800",
)  # fmt: skip
PATTERNS = (
    r"a b", r"a #b", r"[^a-z]+$",
    r"^[a-z]+$", r"\d+", r"[^/]*", r"^(?:a|b){2,3}\Z", r"a.c", r"[\w.-]+@\w+", r"\(x\)\[y\]", r"[\]\\^-]+", r"(ab)?c*?", r"(?:|x)y", r"é+", r"^$",
    r"\s*\w+\s*$", r"(?!x).*", r"(?<=a)b", r"(a)\1", r"(?P<n>a)(?P=n)", r"a{2,}b{,3}", r"[^\d\s]+$", r"\S+", r"\W", r"\D\Z", r"\bfoo\b",
    r"[\u00e9-\u00ff]", r"a|b|", r".*\n?$", r"^[+-]?\d{1,3}(?:,\d{3})*$", r"(?i)abc", r"(?s).+x", r"(?m)^b$", r"(?x) a b # c",
    r"[A-Z]{2}\d{2}[A-Z0-9]{1,30}", r"\A\w{3}\Z", r"x*", r"(?:ab?)+$", r"\x41\t", r"[\s\S]*z", r"(?>a+)b", r"a++b",
)  # fmt: skip
FLAGGED = (
    ("a b", re.VERBOSE), ("a #b", re.VERBOSE), ("[^a-z]+$", re.IGNORECASE), ("abc", re.IGNORECASE), ("^b$", re.MULTILINE),
    ("a.c", re.DOTALL), (r"\w+$", re.ASCII), (r"\D\Z", re.ASCII), (r"^\S+$", re.MULTILINE),
)  # fmt: skip
PATTERN_TEXTS = (
    "abc", "ABC", "ab", "aba", "a.c", "a\nc", "x", "xy", "y", "ab\n", "a\n", "\n", "", "é", "éé", "12", "١٢", "12\n", "1,000", "foo", "_", "a-b",
    "(x)[y]", "]\\^-", "cc", "aab", "aa", "aaab", "b", "DE12X", "A\t", "ǅ", "\x1c", "\x85", "\xa0a", "ß", "K", "ſ", "İ", "a1_", "zz", "[", ":", "a:",
    "l]",
)  # fmt: skip
EMAILS = (
    "a@b.co", "a@b", "a@localhost", "ü@b.co", "a@bücher.example", '"a b"@c.de', "a@[127.0.0.1]", "a@[300.1.1.1]", "a@b.c", "a@-b.co", "a@b-.co",
    "a@b.co\n", "a" * 70 + "@b.co", "a@" + "b" * 63 + ".co", "a@" + "b" * 64 + ".co", "a.@b.co", ".a@b.co", "a..b@c.de", "a@b_c.de", "İ@b.co",
    "a@b.kK", "a@b@c.de", "@b.co", "a@", "a b@c.de", "a@b.co.", "a@b..co", "a@1.2", "a@b.123", "a@xn--bcher-kva.example", "a+b@c.de", "a@b.ſs",
    "A@B.CO", '"\x01"@b.co', '""@b.co', "a@b.c-", "_@_.de", "a\u0301@b.co", "a@b.c\u0301o", "a@LOCALHOST",
)  # fmt: skip
URLS = (
    "/x://a.de", "?://", "#a:b", "/a:b", "/http://a.de",
    "http://a.de", "https://a.de/", "ftp://x", "ftp://x.y/z", "HTTP://A.DE", "http://localhost", "http://localhost:80/a?b#c", "http://127.0.0.1",
    "http://999.1.1.1", "http://[::1]/", "http://a", "a.de", "/a/b", "?a", "#", "http://a.de/ b", "http://a.de\n", "http://user:pw@a.de",
    "http://a_b.de", "http://-a.de", "http://bücher.example", "http://a.de:99999", "javascript:alert(1)", "file:///etc", "file://a.de/x",
    "ssh://a.de", "http://", "://a.de", "http://a.de/\u2028", "http://a.d", "http://a.de.", "http://a.de\\x", "x://a.de", "http://%41@a.de",
    "http://a.ſt", "http://1.2.3.4.5", "", " http://a.de", "http://a.de /", "http://K.de",
)  # fmt: skip
INTS: tuple[Any, ...] = (
    0, 1, -1, "1", " 12 ", "1_000", "٣", "+5", "-0", "1e5", "1.0", "0x10", "", Literal("1.0"), Literal("1.5"), 1.5, True, "12\n", 10**30,
    Literal("1e400"), Literal("2.0e0"), "１２", "9" * 4299, "9" * 4301, "1__0", "_1", "NaN", -1.5, 2**53 + 1,
)  # fmt: skip
FLOATS: tuple[Any, ...] = (
    0, 1.5, "1.5", " 1.5\n", "1e5", "1e400", "nan", "NaN", "-inf", "Infinity", "infinity", "1_0.5", "٣.٥", "0x1p3", "", True, Literal("1e400"),
    10**308, 10**309, Literal("1" + "0" * 309 + ".5"), ".5", "5.", "1e", "+1.5e-3", Literal("1e-400"), "1,5", "½",
)  # fmt: skip
DECIMALS: tuple[Any, ...] = (
    0, "1.5", 1.5, " 1.5 ", "1e5", "1E+400", "NaN", "sNaN", "-NaN", "nan123", "Infinity", "-inf", "1_0", "٣", "", True, "1" * 40, "1" * 26 + ".125",
    "0.005", "1e-30", "1e999999999", Literal("1.005"), 10**30, "1e99999999999999999999", "1.", ".1", "--1", "1e27", "1e28",
)  # fmt: skip
MOMENTS = (
    "2024-02-29T12:30:00", "2024-02-29T12:30:00Z", "2024-02-29 12:30", "2024-02-29T12:30:00.123456+05:30", "2024-02-29", "20240229T123000",
    "2024-W09-4", "2024-W09-4T12", "2023-02-29T00:00:00", "0000-01-01T00:00:00", "9999-12-31T23:59:59.999999", "10000-01-01T00:00:00",
    "2024-02-29T24:00:00", "2024-02-29T12:30:60", "2024-02-29t12:30:00z", "2024-02-29T12:30:00+24:00", "2024-02-29T12:30:00-00:00",
    "2024-02-29T12:30:00+05:30:15.5", "2024-02-29T12:30:00,5", "2024-02-29T12", "infinity", "0044-03-15T12:00:00 BC", "２０２４-02-29",
    "2024-02-29T12:30:00 ", " 2024-02-29", "2024-2-9", "2024-02-29T12:30:00.1234567", "", "Thu, 29 Feb 2024 12:30:00 +0000",
    "29 Feb 2024 12:30:00 -0000", "Thu, 29 Feb 2024 12:30:00", "29 Feb 2024", "29 February 24 12:30 GMT", "Thu", "1709209800", "1709209800.5", "-1",
    "1e18", "nan", "29/02/2024 12:30", "2024", "2024-060", "1999-12-31T23:59:59.999999", "2000-01-01T00:00:00+00:00",
)  # fmt: skip
DAYS = (
    "2024-02-29", "2023-02-29", "20240229", "2024-W09-4", "2024-060", "0001-01-01", "0000-12-31", "9999-12-31", "10000-01-01", "2024-2-9",
    "2024-02-29T00:00:00", " 2024-02-29", "2024-02-29\n", "infinity", "0044-03-15 BC", "29.02.2024", "２０２４-02-29", "", "24-02-29", "Feb 29 2024",
)  # fmt: skip
CLOCKS = (
    "12:30", "12:30:00", "24:00:00", "23:59:60", "12", "1230", "12:30:00.123456", "12:30:00.1234567", "12:30:00,5", "12:30:00Z", "12:30:00+05:30",
    "T12:30", "12:30 ", "1:30", "12:3", "25:00", "", "１２:30", "00:00:00", "12:30 PM",
)  # fmt: skip
UUIDS: tuple[Any, ...] = (
    "6f2c1d0e-0000-4000-8000-000000000000", "{6f2c1d0e-0000-4000-8000-000000000000}", "6F2C1D0E000040008000000000000000",
    "urn:uuid:6f2c1d0e-0000-4000-8000-000000000000", "6f2c1d0e-0000-4000-8000-00000000000", "6f2c1d0e-0000-4000-8000-00000000000g",
    "6f2c1d0e0000-4000-8000-0000-00000000", "-6f2c1d0e-0000-4000-8000-000000000000-", "", "6f2c1d0e-0000-4000-8000-000000000000 ",
    "６f2c1d0e-0000-4000-8000-000000000000", "0x2c1d0e-0000-4000-8000-000000000000", "6f2c_d0e-0000-4000-8000-000000000000",
    " 6f2c1d0e-0000-4000-8000-00000000000", 1, "ffffffff-ffff-ffff-ffff-ffffffffffff",
)  # fmt: skip
IPS: tuple[Any, ...] = (
    "127.0.0.1", "127.0.0.01", "127.0.0.1/8", "256.0.0.1", "::1", "::", "fe80::1%eth0", "fe80::1%", "::ffff:1.2.3.4", "1.2.3", "", " 127.0.0.1",
    "127.0.0.1\n", "10.0.0.0/255.0.0.0", "10.0.0.0/33", "10.0.0.0/", "2001:db8::/32", "2001:db8::1/129", "١.2.3.4", "0x7f.0.0.1", "2130706433",
    2130706433, 1, "1::2::3", "0.0.0.0", "::1/0.0.0.0", "10.0.0.0/0.0.0.255", "12345::", True, ":::", "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7::",
)  # fmt: skip
BOOLS: tuple[Any, ...] = (
    True, False, "t", "T", "true", "TRUE", "on", "y", "1", 1, 0, Literal("1.0"), Literal("0.0"), Literal("-0.0"), "tRUE", "ja", "", " true", 2, 0.5,
    "no", "nein", [], {}, [1], "n", "off", Literal("1e0"),
)  # fmt: skip
TEXT_HOMES = (
    "text", "varchar", "varchar(6)", "char(6)", "public.verdict_mood", 'text COLLATE "C"', "public.verdict_code", "name",
)  # fmt: skip
INT_HOMES = (
    "integer", "bigint", "smallint", "numeric", "numeric(8,0)", "public.verdict_small", "oid", "double precision", "boolean",
)  # fmt: skip
REAL_HOMES = (
    "double precision", "real", "numeric", "numeric(12,3)", "integer", "bigint", "money",
)  # fmt: skip
LIST_HOMES = (
    "jsonb", "jsonb", "json", "text[]", "integer[]", "double precision[]", "numeric[]", "boolean[]", "jsonb[]", "uuid[]", "timestamptz[]", "date[]",
    "public.verdict_mood[]", "public.verdict_words", "real[]", "varchar[]", "bigint[]",
)  # fmt: skip
MOMENT_HOMES = (
    "timestamptz", "timestamp", "date", "public.verdict_when",
)  # fmt: skip
OBJECT_HOMES = (
    "jsonb", "jsonb", "json", "public.verdict_object", "public.verdict_pair",
)  # fmt: skip

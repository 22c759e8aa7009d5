"""A table with a column of every type, filled by seed: the same rows every time, made by PostgreSQL itself.

`make` makes the types and the table, `fill` its rows (as many as you like: one INSERT … SELECT), `columns` says what is
in it. One row in six is NULL in a column, one in six has an edge of the type, the others are random.
"""

from dataclasses import dataclass

import psycopg
from psycopg import sql

NAME = 'every "type" 100%'
TYPES = """
CREATE EXTENSION IF NOT EXISTS hstore SCHEMA public;
CREATE SCHEMA "kinds of%";
CREATE TYPE "kinds of%".mood AS ENUM ('sad', 'so so', 'it''s "fine" 100%, really', 'grün ☘');
CREATE DOMAIN "kinds of%".positive AS int CHECK (VALUE > 0);
CREATE DOMAIN "kinds of%".small AS "kinds of%".positive CHECK (VALUE < 1000);
CREATE DOMAIN "kinds of%".code AS varchar(5) COLLATE "C" NOT NULL DEFAULT 'x';
CREATE DOMAIN "kinds of%".numbers AS int[];
CREATE TYPE "kinds of%"."a Pair" AS (n int, "a ""note"", (odd)" text, at timestamptz, x float8, many numeric(6,2)[]);
CREATE DOMAIN "kinds of%".couple AS "kinds of%"."a Pair";
CREATE TYPE "kinds of%".empty AS ();
CREATE TYPE "kinds of%".deep AS (p "kinds of%"."a Pair", m "kinds of%".mood, a aclitem, l "kinds of%".small[], c money, t regclass);
CREATE TYPE "kinds of%".words AS RANGE (SUBTYPE = text, COLLATION = "C");
CREATE TYPE "kinds of%".spell AS RANGE (SUBTYPE = "kinds of%".mood, MULTIRANGE_TYPE_NAME = "kinds of%"."many Spells");
CREATE TYPE "kinds of%".floats AS RANGE (SUBTYPE = float8, SUBTYPE_DIFF = float8mi);
CREATE DOMAIN "kinds of%".point3 AS public.vector(3);
CREATE TABLE "kinds of%".owner (id int, name text)
"""
_TEXTS = (
    "''", "' '", "'NULL'", "'null'", "'\\N'", "'\\.'", "E'\\t\\n\\r\\b\\f\\v\\x01\\x7f'", "'{\"a\",}'", "'(a,\"b\")'", "'%s %% {}'",
    "'O''Reilly; DROP TABLE x; --'", "'ünïcode ✓ 漢字 🎈'", "'e\u0301\u200b\u202e\ufeff'", "repeat('x', 2100)", "chr(1114111)",
)  # fmt: skip
_WORD = "chr((65 + abs({h} % 900))::int) || substr(md5({h}::text), 1, (abs({h} % 20))::int)"
_INT = "({h} % 2147483648)::int4"
_DAY = "(abs({h} % 4000000) - 1000000)::int"
_MICROS = "(abs({h} % 100000000000) * interval '1 microsecond')"
_REAL = "({h}::float8 * 10::float8 ^ ({h} % 40))"


@dataclass(frozen=True, slots=True)
class Kind:
    """A type: how SQL writes it, edges of it (SQL expressions), and a random value ({h}: a bigint that is one)."""

    type: str
    edges: tuple[str, ...]
    random: str
    array: bool = True
    """Whether a column of arrays of it is made, too."""


def _times(name: str, extra: tuple[str, ...] = ()) -> tuple[str, ...]:
    least, most = (
        ("4713-01-01 BC", "5874897-12-31") if name == "date" else ("4713-01-01 BC", "294276-12-31 23:59:59.999999")
    )
    return (*(f"'{each}'" for each in ("infinity", "-infinity", "2000-01-01", "0044-03-15 BC", least, most)), *extra)


def _range(name: str, low: str, high: str) -> list[Kind]:
    """A range and its multirange over two expressions."""
    edges = (
        "'empty'",
        "'(,)'",
        f"{name}({low.replace('{h}', '1')}, NULL)",
        f"{name}(NULL, {low.replace('{h}', '1')}, '(]')",
    )
    several = f"{name.replace('range', 'multirange')}({name}({low}, {high}), {name}({high}, NULL))"
    return [
        Kind(name, edges, f"{name}({low}, {high}, (ARRAY['[]','()','[)','(]'])[1 + abs({{h}} % 4)])"),
        Kind(name.replace("range", "multirange"), ("'{}'", "'{(,)}'"), several),
    ]


def _catalog(type_: str, source: str) -> Kind:
    """An OID that names something, by one of the catalogs; 0 and one that names nothing are edges."""
    return Kind(
        type_, ("0::oid", "4294967295::oid"), f"(SELECT min(c.oid) FROM {source} c WHERE c.oid > abs({{h}} % 3000))"
    )


BUILT_IN = (
    Kind("bool", ("true", "false"), "{h} % 2 = 0"),
    Kind("bytea", ("''", r"'\x00'", r"'\x00ff5c27'"), "decode(md5({h}::text), 'hex')"),
    Kind('"char"', ("''", "'a'", r"'\200'", r"'\377'"), "chr((32 + abs({h} % 90))::int)"),
    Kind("name", ("''", "repeat('é', 31)"), "substr(md5({h}::text), 1, 20)"),
    Kind("int8", ("-9223372036854775808", "9223372036854775807", "0"), "{h}"),
    Kind("int2", ("-32768", "32767", "0"), "({h} % 32768)::int2"),
    Kind("int4", ("-2147483648", "2147483647", "0"), _INT),
    Kind("text", _TEXTS, _WORD),
    Kind("json", ("'null'", "' {\"a\" : 1, \"a\":2 } '", "'[1e400]'", r"""'"\u0000\ud83d\ude00"'"""), "json_build_object('k', {h}, 'w', " + _WORD + ")"),
    Kind("jsonb", ("'null'", "'{}'", "'[]'", "'{\"\": {\"a\": [null, true, \"\\\"\"]}}'", "('[' || repeat('9', 500) || '.5, -1e-300, 1e131071]')::jsonb"), "jsonb_build_object('k', {h}, 'w', ARRAY[" + _WORD + "])"),
    Kind("jsonpath", ("'$'", "'strict $.a[*] ? (@.b like_regex \"^x\" flag \"i\")'"), "('$.\"' || md5({h}::text) || '\"')::jsonpath"),
    Kind("xml", (), "NULL"),
    Kind("float4", ("'NaN'", "'Infinity'", "'-Infinity'", "'-0'", "'1e-45'", "'3.4028235e38'"), "({h}::float8 / 1e10)::float4"),
    Kind("float8", ("'NaN'", "'Infinity'", "'-Infinity'", "'-0'", "'5e-324'", "'1.7976931348623157e308'", "0.1"), _REAL),
    Kind("numeric", ("'NaN'", "'Infinity'", "'-Infinity'", "'0'", "'0.000'", "('1' || repeat('0', 4000))::numeric", "'1e-16383'", "-1e131071"), "({h}::numeric / 10 ^ abs({h} % 30))"),
    Kind("numeric(12,3)", ("'NaN'", "999999999.999", "-0.001"), "({h} % 1000000000)::numeric / 1000"),
    Kind("money", ("'-$92,233,720,368,547,758.08'", "'$92,233,720,368,547,758.07'", "0"), "({h} % 1000000000)::numeric / 100"),
    Kind("oid", ("0", "4294967295"), "(abs({h}) % 4294967296)::oid"),
    Kind("xid", ("'0'", "'4294967295'"), "(abs({h}) % 4294967296)::text::xid"),
    Kind("xid8", ("'0'", "'18446744073709551615'"), "abs({h})::text::xid8"),
    Kind("cid", ("'0'", "'4294967295'"), "(abs({h}) % 4294967296)::text::cid"),
    Kind("tid", ("'(0,0)'", "'(4294967295,65535)'"), "('(' || abs({h} % 99999) || ',' || abs({h} % 300) || ')')::tid"),
    Kind("pg_lsn", ("'0/0'", "'FFFFFFFF/FFFFFFFF'"), "('0/0'::pg_lsn + abs({h})::numeric)"),
    Kind("pg_snapshot", ("'1:1:'",), "(abs({h} % 1000) + 1 || ':' || 2000 + abs({h} % 99) || ':1500')::pg_snapshot"),
    Kind("txid_snapshot", ("'1:1:'",), "(abs({h} % 1000) + 1 || ':' || 2000 + abs({h} % 99) || ':1500')::txid_snapshot"),
    Kind("date", _times("date"), "date '2000-01-01' + ({h} % 700000)::int"),
    Kind("time", ("'00:00'", "'24:00'", "'23:59:59.999999'"), "time '00:00' + " + _MICROS),
    Kind("time(2)", ("'24:00'",), "time '00:00' + " + _MICROS),
    Kind("timetz", ("'00:00+15:59:59'", "'24:00-15:59:59'"), "(time '00:00' + " + _MICROS + ") AT TIME ZONE interval '5:30'"),
    Kind("timestamp", _times("timestamp"), "timestamp '2000-01-01' + " + _MICROS),
    Kind("timestamptz", _times("timestamptz", ("'2001-09-28 01:00:00.5+14'",)), "timestamptz '1970-01-01 UTC' + " + _MICROS),
    Kind("interval", ("'infinity'", "'-infinity'", "'-178000000 years'", "'1 mon -1 day +00:00:00.000001'", "'0'"), "make_interval(months => ({h} % 900)::int, days => ({h} % 9000)::int, secs => {h} % 99999999)"),
    Kind("interval day to second(2)", ("'-3 days'",), "make_interval(secs => {h} % 99999999)"),
    Kind("uuid", ("'00000000-0000-0000-0000-000000000000'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'"), "md5({h}::text)::uuid"),
    Kind("char(7)", ("''", "'  a'", "'é'", "'1234567'"), "substr(md5({h}::text), 1, (abs({h} % 8))::int)"),
    Kind("bpchar", ("''", "'a  '"), "md5({h}::text)"),
    Kind("varchar(40)", ("''", "'a  '", "repeat('é', 40)"), _WORD),
    Kind("bit(5)", ("B'00000'", "B'11111'"), "(abs({h} % 32))::int::bit(5)"),
    Kind("varbit", ("''", "B'1'", "repeat('10', 900)::varbit"), "substring({h}::bit(64)::varbit FROM 1 FOR (abs({h} % 64))::int)"),
    Kind("inet", ("'0.0.0.0/0'", "'::'", "'::ffff:1.2.3.4/128'", "'10.1.2.3/8'"), "inet '10.0.0.0' + abs({h} % 16000000)"),
    Kind("cidr", ("'0.0.0.0/0'", "'2001:db8::/32'"), "set_masklen((inet '10.0.0.0' + abs({h} % 16000000)), 32)::cidr"),
    Kind("macaddr", ("'00:00:00:00:00:00'", "'ff:ff:ff:ff:ff:ff'"), "substr(md5({h}::text), 1, 12)::macaddr"),
    Kind("macaddr8", ("'00:00:00:00:00:00:00:00'",), "substr(md5({h}::text), 1, 16)::macaddr8"),
    Kind("point", ("'(NaN,-Infinity)'", "'(-0,0)'"), "point({h}, " + _REAL + ")"),
    Kind("line", ("'{1,-1,0}'", "'{0,-1,5e-324}'"), "line(point(0, {h}), point(1, {h} / 2))"),
    Kind("lseg", ("'[(0,0),(0,0)]'",), "lseg(point(0, {h}), point(1, 2))"),
    Kind("box", ("'(0,0),(0,0)'",), "box(point(0, {h}), point(1, 2))"),
    Kind("path", ("'[(0,0)]'", "'((0,0),(1,1))'"), "('[(0,0),(' || {h} || ',3),(4,5)]')::path"),
    Kind("polygon", ("'((0,0))'",), "('((0,0),(' || {h} || ',3),(4,5))')::polygon"),
    Kind("circle", ("'<(0,0),0>'", "'<(0,0),Infinity>'"), "circle(point({h}, 2), abs({h} % 99))"),
    Kind("tsvector", ("''", "$$'a ''b'':1A,2 'c\\\\d':16383D$$"), "to_tsvector('simple', " + _WORD + " || ' x y x')"),
    Kind("tsquery", ("''", "'!a & (b | c:AB*) <3> d'"), "plainto_tsquery('simple', md5({h}::text) || ' x')"),
    Kind("gtsvector", (), "NULL"),
    Kind("refcursor", ("''",), _WORD),
    Kind("int2vector", ("''", "'1 -2 3'"), "('1 ' || {h} % 32768)::int2vector"),
    Kind("oidvector", ("''", "'0 4294967295'"), "('1 ' || abs({h} % 32768))::oidvector"),
    Kind("aclitem", ("'=r/postgres'", "'postgres=arwdDxtm*/postgres'"), "makeaclitem((SELECT oid FROM pg_roles WHERE rolname = current_user), 10::oid, (ARRAY['SELECT', 'INSERT, UPDATE'])[1 + abs({h} % 2)], {h} % 2 = 0)"),
    _catalog("regproc", "pg_proc"), _catalog("regprocedure", "pg_proc"), _catalog("regoper", "pg_operator"),
    _catalog("regoperator", "pg_operator"), _catalog("regclass", "pg_class"), _catalog("regtype", "pg_type"),
    _catalog("regconfig", "pg_ts_config"), _catalog("regdictionary", "pg_ts_dict"), _catalog("regnamespace", "pg_namespace"),
    _catalog("regrole", "pg_roles"), _catalog("regcollation", "pg_collation"),
    *_range("int4range", "(abs({h} % 1000000))::int", "(1000001 + abs({h} % 1000))::int"),
    *_range("int8range", "-abs({h} / 2)", "abs({h} / 2)"),
    *_range("numrange", "-abs({h})::numeric / 7", "abs({h})::numeric / 7"),
    *_range("daterange", "date '2000-01-01' - (abs({h} % 99999))::int", "date '2000-01-02' + (abs({h} % 99999))::int"),
    *_range("tsrange", "timestamp '2000-01-01' - " + _MICROS, "timestamp '2000-01-02' + " + _MICROS),
    *_range("tstzrange", "timestamptz '2000-01-01 UTC' - " + _MICROS, "timestamptz '2000-01-02 UTC' + " + _MICROS),
    Kind("pg_node_tree", (), "(SELECT d.adbin FROM pg_attrdef d ORDER BY d.oid LIMIT 1)", array=False),
    Kind("pg_ndistinct", (), "NULL", array=False), Kind("pg_dependencies", (), "NULL", array=False),
    Kind("pg_mcv_list", (), "NULL", array=False), Kind("pg_brin_bloom_summary", (), "NULL", array=False),
    Kind("pg_brin_minmax_multi_summary", (), "NULL", array=False),
)  # fmt: skip
_PAIR = (
    """ROW({h} % 100000, """ + _WORD + """, timestamptz '2000-01-01 UTC' + """ + _MICROS + ", " + _REAL
    + """, ARRAY[NULL, 1.25])::"kinds of%"."a Pair\""""
)  # fmt: skip
_MOOD = """(enum_range(NULL::"kinds of%".mood))[1 + abs({h} % 4)]"""
USERS = (
    Kind('"kinds of%".mood', ("'it''s \"fine\" 100%, really'",), _MOOD),
    Kind('"kinds of%".positive', ("1",), "(1 + abs({h} % 99999))::int"),
    Kind('"kinds of%".small', ("999",), "(1 + abs({h} % 900))::int"),
    Kind('"kinds of%".numbers', ("'{}'", "'[-3:-2]={1,NULL}'", "'{{{1}},{{2}}}'"), "ARRAY[(1 + abs({h} % 900))::int, NULL]"),
    Kind('"kinds of%"."a Pair"', ("ROW(NULL, NULL, NULL, NULL, NULL)", "ROW(1, '(\"\\,', '-infinity', '-0', '{}')"), _PAIR),
    Kind('"kinds of%".couple', ("ROW(NULL, '', NULL, 'NaN', NULL)",), _PAIR),
    Kind('"kinds of%".empty', (), """ROW()::"kinds of%".empty""", array=False),
    Kind(
        '"kinds of%".deep', ("ROW(NULL, NULL, '=r/postgres', '{}', -0.01, 'pg_class')",),
        "ROW(" + _PAIR + ", " + _MOOD + ", NULL, ARRAY[(1 + abs({h} % 900))], 12.5, '\"kinds of%\".owner'::regclass)",
    ),
    Kind('"kinds of%".words', ("'empty'", "'(,)'", "'[\"\",\"\\\"\"]'"), """"kinds of%".words('A', 'B' || """ + _WORD + ")"),
    Kind('"kinds of%".spell', ("'empty'", "'[sad,\"so so\")'"), '"kinds of%".spell(' + _MOOD + ", NULL)"),
    Kind('"kinds of%"."many Spells"', ("'{}'",), '"kinds of%"."many Spells"("kinds of%".spell(' + _MOOD + ", NULL))"),
    Kind('"kinds of%".floats', ("'[-Infinity,NaN]'", "'[-0,0]'"), """"kinds of%".floats(0, abs({h}))"""),
    Kind('"kinds of%".owner', ("ROW(NULL, NULL)",), """ROW({h} % 1000, '')::"kinds of%".owner"""),
    Kind('"kinds of%".point3', ("'[0,-0,3e38]'",), "('[1,' || {h} % 999 || ',3]')::public.vector(3)"),
    Kind("public.vector(3)", ("'[0,-0,1e-45]'",), "('[1,' || {h} % 999 || ',0.1]')::public.vector(3)"),
    Kind("public.halfvec(3)", ("'[0,-0,65504]'",), "('[1,' || {h} % 999 || ',0.1]')::public.halfvec(3)"),
    Kind("public.sparsevec(5)", ("'{}/5'",), "('{2:' || 1 + abs({h} % 999) || '}/5')::public.sparsevec(5)"),
    Kind("public.hstore", ("''", "'a=>NULL,\"\"=>\"\"'"), "public.hstore(md5({h}::text), {h}::text)"),
    Kind('varchar(9) COLLATE "C"', ("''",), "substr(md5({h}::text), 1, 5)", array=False),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Filled:
    """A column: its name, its type, and the expression that fills it ({h}: its random bigint)."""

    name: str
    type: str
    value: str


def columns() -> list[Filled]:
    """Every column that `fill` fills."""
    found = []
    for place, kind in enumerate((*BUILT_IN, *USERS)):
        bare = kind.type.split(" COLLATE ")[0]
        choices = ", ".join(f"({edge})::{bare}" if edge[:1] != "'" else f"{edge}::{bare}" for edge in kind.edges)
        edge = f"(ARRAY[{choices}])[1 + abs({{h}} % {len(kind.edges)})]" if kind.edges else "NULL"
        if bare.endswith(".numbers"):  # a domain over arrays has no arrays of itself by ARRAY[…]
            edge = f"{kind.edges[0]}::{bare}"
        random = f"({kind.random})::{bare}"
        found.append(
            Filled(
                f"c{place} {bare}"[:60],
                kind.type,
                f"CASE abs({{h}} % 6) WHEN 0 THEN NULL WHEN 1 THEN {edge} ELSE {random} END",
            )
        )
        if kind.array and not bare.endswith(".numbers"):
            found.append(Filled(f"a{place} {bare}"[:60], f"{bare}[]", _array(bare, random)))
    return found


def _array(bare: str, random: str) -> str:
    """Half of them NULL; empty, with NULLs in them, of two dimensions and with odd lower bounds."""
    return (
        f"CASE abs({{h}} % 10) WHEN 0 THEN '{{}}'::{bare}[] WHEN 1 THEN ARRAY[{random}, NULL] WHEN 2 THEN "
        f"array_fill({random}, ARRAY[2, 1], ARRAY[-3, 7]) WHEN 3 THEN ARRAY[{random}] WHEN 4 THEN ARRAY[NULL]::{bare}[] END"
    )


def make(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    """Make the types and the table: with a dropped column, identity, serial, generated columns and a hostile name."""
    connection.execute(TYPES.encode())
    connection.execute("CREATE TABLE public.defaults (a int DEFAULT 1)")  # for pg_node_tree
    listed = ",\n".join(f"{sql.Identifier(each.name).as_string()} {each.type}" for each in columns())
    connection.execute(
        f"""
        CREATE TABLE {sql.Identifier("public", NAME).as_string()} (
          gone text, id bigint PRIMARY KEY, "a ""key"" 100% %s" bigint GENERATED ALWAYS AS IDENTITY (START 5 INCREMENT 3),
          counted serial, twice bigint GENERATED ALWAYS AS (id * 2) STORED,
          thrice bigint GENERATED ALWAYS AS (id * 3) VIRTUAL, toast text, also_gone int, {listed})""".encode()
    )
    table = sql.Identifier("public", NAME)
    connection.execute(sql.SQL("ALTER TABLE {} DROP COLUMN gone, DROP COLUMN also_gone").format(table))


def fill(connection: psycopg.Connection[tuple[object, ...]], rows: int, *, seed: int = 1, first: int = 1) -> None:
    """Insert rows with the ids `first`, …: the same for the same seed and id. One in 997 has values of 100 kB.

    A row is about 2 kB. Memory is PostgreSQL's.
    """
    filled = columns()
    names = sql.SQL(", ").join(sql.Identifier(each.name) for each in filled)
    values = ", ".join(
        each.value.replace("{h}", f"hashint8extended(i, {seed * 1000 + place})") for place, each in enumerate(filled)
    )
    statement = sql.SQL(
        "INSERT INTO {table} (id, toast, {names}) SELECT i, CASE WHEN i % 997 = 0 THEN repeat(md5(i::text), 3000) || "
        "(SELECT string_agg(md5((i * 1000 + k)::text), '') FROM generate_series(1, 900) k) END, {values} "
        "FROM generate_series({first}, {last}) AS i"
    ).format(
        table=sql.Identifier("public", NAME), names=names, values=sql.SQL(values), first=sql.Literal(first),
        last=sql.Literal(first + rows - 1),
    )  # fmt: skip
    connection.execute(statement)

"""Making sample data: the ids come from here, everything else is made on the server; memory does not grow."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import psycopg
from psycopg import sql

from briefly_admin.domain.errors import Refused, Unavailable
from briefly_admin.engine.catalog import CatalogTable, read_table
from briefly_admin.engine.sampledata import pool
from briefly_admin.engine.sampledata.cleaning import SAMPLE, foreign_rows, remove, sample_exists
from briefly_admin.engine.sampledata.faults import REPAIRABLE, fault_kind
from briefly_admin.engine.sampledata.plants import Plant, like_row, plant_columns, planted
from briefly_admin.engine.sampledata.rows import row_texts
from briefly_admin.engine.sampledata.shape import Shape
from briefly_admin.engine.target import SCHEMA, Connection, Target, safe_message
from briefly_admin.plans.base import Plan, Table

Report = Callable[[str, int], None]

_SETTINGS: Final = sql.SQL("SET LOCAL work_mem = '32MB'; SET LOCAL maintenance_work_mem = '64MB'")
_KEY_TYPES: Final = ("uuid", "text", "varchar")


@dataclass(frozen=True, slots=True)
class _Site:
    """Where the rows go: the session, the plan's tables as they are, and the vector extension's schema."""

    connection: Connection
    shape: Shape
    catalog: Mapping[str, CatalogTable]
    made: frozenset[str]
    """Tables that this call made."""
    vector_schema: str


def create(
    target: Target,
    plan: Plan,
    *,
    scale: int = 1,
    dirty: int = 0,
    seed: int = 0,
    embeddings: int | None = None,
    report: Report = lambda _table, _rows: None,
) -> dict[str, int]:
    """Rows made, by table; all in one transaction. Older sample data goes first; the same arguments give the same rows.

    `scale` multiplies the seed's counts. `dirty` per cent of the rows get a repairable fault; with any, the planted
    faults (and the rows that hold them) stand beside the counted rows. `embeddings`: how many chunks get one; None:
    all, but 20,000 at most. `report` hears each table's rows, and a fault that the table's types rule out as
    ("not planted: <name>", 0). Raises InvalidRequest, Refused (users that are not sample data; constraints or types
    that the rows do not fit), Unavailable.
    """
    shape = Shape(scale=scale, dirty=dirty, seed=seed, embeddings=embeddings)
    shape.check()
    with target.session(bulk=True) as connection, _explained(dirty=dirty), connection.transaction():
        connection.execute(_SETTINGS)
        _refuse_foreign_users(connection, plan)
        remove(connection, plan)
        site = _prepare(connection, plan, shape)
        made = {}
        for table in plan.tables:
            made[table.name] = _fill(site, table, report)
            report(table.name, made[table.name])
        _finish(site, plan)
    return made


@contextmanager
def _explained(*, dirty: int) -> Iterator[None]:
    """Database errors as ours; none shows a value."""
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as error:
        raise Refused(
            f"The role may not make sample data here ({safe_message(error)}).",
            remedy="Use the role that owns the tables, with the right to create in schema public and in the database.",
        ) from None
    except psycopg.errors.IntegrityError as error:
        remedy = "Empty the tables, or use another database."
        if dirty:
            remedy = "Roll the migration back that added it, or make the data without --dirty."
        raise Refused(f"The sample rows break a rule of the target ({safe_message(error)}).", remedy=remedy) from None
    except psycopg.errors.LockNotAvailable:
        raise Refused("Somebody else holds the tables.", remedy="Try again when they are done.") from None
    except (psycopg.DataError, psycopg.ProgrammingError, psycopg.NotSupportedError) as error:
        raise Refused(
            f"The target's tables do not fit the sample data ({safe_message(error)}).",
            remedy="Use an empty database: missing tables are made.",
        ) from None
    except psycopg.Error as error:
        raise Unavailable(
            f"The database failed while sample data were made ({safe_message(error)}); nothing was kept.",
            remedy="Try again.",
        ) from None


def _refuse_foreign_users(connection: Connection, plan: Plan) -> None:
    users = plan.table("users")
    count = foreign_rows(connection, users) if read_table(connection, users.schema, users.name) else 0
    if count:
        raise Refused(
            f"The target holds {count:,} users that are not sample data.",
            remedy="Sample data are for a test database: point TARGET_DATABASE_URL at an empty one.",
        )


def _prepare(connection: Connection, plan: Plan, shape: Shape) -> _Site:
    """Our schema, missing tables, and the temporary tables of ids, words and vectors."""
    vector_schema = _vector_schema(connection)
    catalog: dict[str, CatalogTable] = {}
    made = set()
    for table in plan.tables:
        found = read_table(connection, table.schema, table.name)
        if found is None:
            _make_table(connection, table, shape, vector_schema)
            made.add(table.name)
            found = read_table(connection, table.schema, table.name)
        assert found is not None
        if table.name not in made:
            _check_table(table, found)
        catalog[table.name] = found
    for table in plan.tables:
        _load_ids(connection, table, shape)
    _load_pool(connection, shape, vector_schema)
    return _Site(connection, shape, catalog, frozenset(made), vector_schema)


def _vector_schema(connection: Connection) -> str:
    row = connection.execute(
        "SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector'"
    ).fetchone()
    if row is None:
        raise Refused(
            "The target has no vector extension.",
            remedy="Let a superuser (or the platform's console) run CREATE EXTENSION vector there.",
        )
    return str(row[0])


def _make_table(connection: Connection, table: Table, shape: Shape, vector_schema: str) -> None:
    """The plan's columns without constraints; the key is added when the rows are in.

    With faults to plant an embedding has no dimension by its type: else none could be of a wrong one.
    """
    columns = []
    for column in table.columns:
        name, _, dimension = column.type.partition("(")
        type_ = sql.SQL(column.type)
        if name == "vector":
            type_ = sql.SQL("{}.{}").format(
                sql.Identifier(vector_schema), sql.SQL(name if shape.dirty else f"{name}({dimension}")
            )  # type: ignore[assignment]
        columns.append(sql.SQL("{} {}").format(sql.Identifier(column.name), type_))
    connection.execute(
        sql.SQL("CREATE TABLE {} ({})").format(sql.Identifier(table.schema, table.name), sql.SQL(", ").join(columns))
    )


def _check_table(table: Table, found: CatalogTable) -> None:
    lacking = [c.name for c in table.columns if c.required and found.column(c.name) is None]
    if lacking:
        raise Refused(
            f"The table {table.name} lacks {', '.join(lacking)}.",
            remedy="Use an empty database: missing tables are made.",
        )
    key = found.column(table.key[0])
    if key is None or key.base_type not in _KEY_TYPES:
        raise Refused(
            f"The ids of {table.name} are {key.type if key else 'missing'}; sample data have uuids.",
            remedy="Use an empty database: missing tables are made.",
        )


def _load_ids(connection: Connection, table: Table, shape: Shape) -> None:
    ids = sql.Identifier("pg_temp", f"ids_{table.name}")
    connection.execute(sql.SQL("CREATE TEMPORARY TABLE {} (n bigint, id uuid) ON COMMIT DROP").format(ids))
    with (
        connection.cursor() as cursor,
        cursor.copy(sql.SQL("COPY {} (n, id) FROM STDIN (FORMAT binary)").format(ids)) as copy,
    ):
        for piece in shape.copy_keys(table.name):
            copy.write(piece)
    connection.execute(sql.SQL("ANALYZE {}").format(ids))


def _load_pool(connection: Connection, shape: Shape, vector_schema: str) -> None:
    columns = ", ".join(f"{name} {'bigint' if name == 'k' else 'text'}" for name in pool.COLUMNS)
    connection.execute(sql.SQL(f"CREATE TEMPORARY TABLE pool ({columns}) ON COMMIT DROP"))
    connection.execute(
        sql.SQL("CREATE TEMPORARY TABLE vectors (k bigint, v {}.vector) ON COMMIT DROP").format(
            sql.Identifier(vector_schema)
        )
    )
    with connection.cursor() as cursor:
        with cursor.copy("COPY pg_temp.pool FROM STDIN") as copy:
            for row in pool.words(shape.seed):
                copy.write_row(row)
        if shape.embedded_chunks:
            with cursor.copy("COPY pg_temp.vectors FROM STDIN") as copy:
                for vector in pool.vectors(shape.seed):
                    copy.write_row(vector)
    connection.execute("ANALYZE pg_temp.pool; ANALYZE pg_temp.vectors")


def _fill(site: _Site, table: Table, report: Report) -> int:
    """The table's rows and, with faults wanted, its planted ones. How many there are."""
    shape = site.shape
    texts = row_texts(table.name, shape)
    columns = dict(texts.columns)
    if shape.dirty:
        for column, right in texts.columns.items():
            cases = [
                f"WHEN {number} THEN {kind.value}"
                for number, kind in enumerate(REPAIRABLE[table.name])
                if kind.field == column
            ]
            if cases:
                columns[column] = f"CASE i.kind {' '.join(cases)} ELSE {right} END"
    ids = f"(SELECT n, id, {fault_kind(table.name, shape)} AS kind FROM pg_temp.ids_{table.name})"
    _insert(site, table, columns, f"{ids} AS i{texts.joins}")
    made = shape.rows(table.name)
    if shape.dirty:
        for number, plant in enumerate(planted(table.name)):
            made += _plant(site, table, plant, number, report)
    return made


def _plant(site: _Site, table: Table, plant: Plant, number: int, report: Report) -> int:
    """The planted row, as one more id of the table. 1, or 0 where the table rules the fault out."""
    catalog, shape = site.catalog[table.name], site.shape
    index = catalog.column("chunk_index")
    different = plant_columns(plant, number, shape, index.base_type if index else "")
    embedding = catalog.column("embedding")
    fixed = "embedding" in plant.columns and embedding is not None and embedding.typmod != -1
    if fixed or any(catalog.column(column) is None for column in plant.columns):
        report(f"not planted: {plant.name}", 0)
        return 0
    texts = row_texts(table.name, shape)
    key = shape.key(table.name, plant.name)
    row = f"(SELECT {like_row(plant, shape)}::bigint AS n, '{key}'::uuid AS id) AS i"
    _insert(site, table, {**texts.columns, **different}, row + texts.joins)
    connection = site.connection
    connection.execute(sql.SQL("INSERT INTO {} VALUES (-1, {})").format(
        sql.Identifier("pg_temp", f"ids_{table.name}"), sql.Literal(key)
    ))  # fmt: skip
    return 1


def _insert(site: _Site, table: Table, columns: Mapping[str, str], source: str) -> None:
    """INSERT … SELECT of the columns that the table has, each cast to the type that it has there."""
    names, values = [], []
    schema = sql.Identifier(site.vector_schema)
    for name, text in columns.items():
        column = site.catalog[table.name].column(name)
        if column is None or column.generated:
            continue
        expression = text
        if name == "sources" and column.base_type.startswith("_"):
            expression = (
                f"CASE jsonb_typeof({text}) WHEN 'array' THEN ARRAY(SELECT jsonb_array_elements_text({text})) END"
            )
        names.append(sql.Identifier(name))
        cast = sql.SQL(column.type)  # as the catalog prints it, quoted and qualified
        values.append(sql.SQL("({})::{}").format(sql.SQL(expression).format(vector_schema=schema), cast))
    site.connection.execute(
        sql.SQL("INSERT INTO {} ({}) SELECT {} FROM {}").format(
            site.catalog[table.name].identifier,
            sql.SQL(", ").join(names),
            sql.SQL(", ").join(values),
            sql.SQL(source),
        )
    )


def _finish(site: _Site, plan: Plan) -> None:
    """Keys of the tables made here, the list of sample rows, statistics."""
    connection = site.connection
    for table in plan.tables:
        identifier = sql.Identifier(table.schema, table.name)
        if table.name in site.made:
            key = sql.SQL(", ").join(map(sql.Identifier, table.key))
            connection.execute(sql.SQL("ALTER TABLE {} ADD PRIMARY KEY ({})").format(identifier, key))
    if connection.execute("SELECT to_regnamespace(%s) IS NULL", (SCHEMA,)).fetchone() == (True,):
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(SCHEMA)))
    new = not sample_exists(connection)
    if new:
        connection.execute(sql.SQL('CREATE TABLE {} ("table" text NOT NULL, key text NOT NULL)').format(SAMPLE))
    for table in plan.tables:
        connection.execute(
            sql.SQL('INSERT INTO {} ("table", key) SELECT {}, id::text FROM {}').format(
                SAMPLE, sql.Literal(table.name), sql.Identifier("pg_temp", f"ids_{table.name}")
            )
        )
    if new:
        connection.execute(sql.SQL('ALTER TABLE {} ADD PRIMARY KEY ("table", key)').format(SAMPLE))
    for table in plan.tables:
        connection.execute(sql.SQL("ANALYZE {}").format(sql.Identifier(table.schema, table.name)))

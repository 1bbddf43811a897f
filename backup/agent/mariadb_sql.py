"""What is asked of MariaDB and MySQL; every answer is one line of JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

END = "--tidegate--"
LOCK_WAIT = 10  # seconds in which everybody who writes has to let us in
HERE = "table_schema = DATABASE()"
KINDS = "('BASE TABLE', 'SYSTEM VERSIONED')"

PLAIN = f"SET SESSION sql_mode = '', SESSION lock_wait_timeout = {LOCK_WAIT};\n"
BEGIN = "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ;\nSTART TRANSACTION WITH CONSISTENT SNAPSHOT;\n"
FACTS = """SELECT JSON_OBJECT('server', VERSION(), 'collation', @@collation_database, 'bytes',
  (SELECT CAST(COALESCE(SUM(data_length + index_length), 0) AS UNSIGNED) FROM information_schema.tables WHERE table_schema = DATABASE()));
"""
TABLES = f"SELECT JSON_ARRAY(table_name, engine) FROM information_schema.tables WHERE {HERE} AND table_type IN {KINDS} ORDER BY table_name;\n"
SCHEMA = f"""SELECT JSON_ARRAY('table', table_name, table_type, engine, table_collation) FROM information_schema.tables WHERE {HERE};
SELECT JSON_ARRAY('column', table_name, ordinal_position, column_name, column_type, is_nullable, column_default, extra, generation_expression,
  collation_name) FROM information_schema.columns WHERE {HERE};
SELECT JSON_ARRAY('index', table_name, index_name, seq_in_index, column_name, non_unique, sub_part) FROM information_schema.statistics WHERE {HERE};
SELECT JSON_ARRAY('reference', table_name, constraint_name, column_name, referenced_table_name, referenced_column_name)
  FROM information_schema.key_column_usage WHERE {HERE} AND referenced_table_name IS NOT NULL;
SELECT JSON_ARRAY('view', table_name, view_definition) FROM information_schema.views WHERE {HERE};
SELECT JSON_ARRAY('trigger', trigger_name, event_object_table, action_timing, event_manipulation, action_statement)
  FROM information_schema.triggers WHERE trigger_schema = DATABASE();
SELECT JSON_ARRAY('routine', routine_name, routine_type, routine_definition) FROM information_schema.routines WHERE routine_schema = DATABASE();
SELECT JSON_ARRAY('event', event_name, event_definition) FROM information_schema.events WHERE event_schema = DATABASE();
"""


ALL_LOCK = "FLUSH TABLES WITH READ LOCK;\n"


def end() -> str:
    """Return what marks the end of an answer."""
    return f"SELECT '{END}';\n"


def name(text: str) -> str:
    """Quote a name."""
    return "`" + text.replace("`", "``") + "`"


def literal(text: str) -> str:
    """Quote a text."""
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def count(tables: Iterable[str]) -> str:
    """Return what counts every table's rows."""
    return "".join(f"SELECT JSON_ARRAY({literal(one)}, COUNT(*)) FROM {name(one)};\n" for one in tables)


def hold(tables: Iterable[str]) -> str:
    """Return what keeps every table from being changed or dropped until the transaction ends."""
    return "".join(f"SELECT 1 FROM {name(one)} LIMIT 0;\n" for one in tables)


def read_lock(tables: Iterable[str]) -> str:
    """Return what keeps everybody from writing these tables."""
    return "LOCK TABLES " + ", ".join(f"{name(one)} READ" for one in tables) + ";\n"


def where(port: int) -> str:
    """Return what tells which database a connection of ours is using."""
    return f"SELECT COALESCE(db, '') FROM information_schema.processlist WHERE host LIKE '%:{port}';\n{end()}"


def names_in(databases: Mapping[str, str]) -> str:
    """Return what lists the databases of these names and all that is in them, by the key each has here."""
    return "".join(
        f"SELECT JSON_ARRAY('{key}', '', '') FROM information_schema.schemata WHERE schema_name = {literal(one)};\n"
        f"SELECT JSON_ARRAY('{key}', table_name, table_type) FROM information_schema.tables WHERE table_schema = {literal(one)};\n"
        f"SELECT JSON_ARRAY('{key}', trigger_name, 'TRIGGER') FROM information_schema.triggers WHERE trigger_schema = {literal(one)};\n"
        f"SELECT JSON_ARRAY('{key}', routine_name, routine_type) FROM information_schema.routines WHERE routine_schema = {literal(one)};\n"
        f"SELECT JSON_ARRAY('{key}', event_name, 'EVENT') FROM information_schema.events WHERE event_schema = {literal(one)};\n"
        for key, one in databases.items()
    )

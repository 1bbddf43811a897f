"""What is asked of PostgreSQL 15 to 17; every answer is one line of JSON."""

from __future__ import annotations

END = "--tidegate--"
LOCK_WAIT = 15  # seconds to wait for somebody who changes a table; whoever wants that table next waits behind us

_USERS_OWN = """n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = {kind}::regclass AND d.objid = {oid} AND d.deptype = 'e')"""
_TABLES = (
    "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND "
    + (_USERS_OWN.format(kind="'pg_class'", oid="c.oid"))
)
_RELATIONS = _TABLES.replace("c.relkind = 'r'", "c.relkind IN ('r', 'p', 'v', 'm', 'f')")
_ROUTINES = "FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE p.prokind IN ('f', 'p') AND " + (
    _USERS_OWN.format(kind="'pg_proc'", oid="p.oid")
)

PLAIN = "SET search_path = pg_catalog; SET statement_timeout = 0; SET lock_timeout = 0; SET row_security = off;\n"

BEGIN = f"""{PLAIN}SET lock_timeout = '{{wait}}s'; SET idle_in_transaction_session_timeout = 0;
SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'transaction_timeout' \\g /dev/null
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SELECT json_build_object('snapshot', pg_export_snapshot(), 'server', current_setting('server_version'),
  'client', :'VERSION_NAME', 'number', current_setting('server_version_num')::int, 'tools', :'VERSION_NUM'::int,
  'bytes', pg_database_size(current_database()), 'roles', has_table_privilege('pg_authid', 'SELECT'), 'bootstrap', (SELECT rolname FROM pg_roles WHERE oid = 10));
\\echo {END}
"""

# Locked at once, so that nobody who waits to change a table gets between our count of it and pg_dump's lock.
LOCK = f"SELECT format('LOCK TABLE ONLY %I.%I IN ACCESS SHARE MODE', n.nspname, c.relname) {_TABLES} \\gexec\n\\echo {END}\n"

_COUNT = """SELECT format('SELECT json_build_array(%L, count(*)) FROM ONLY %I.%I', format('%I.%I', n.nspname, c.relname),
  n.nspname, c.relname)"""
COUNT = f"{_COUNT} {_TABLES} ORDER BY c.oid \\gexec\n"
# In the transaction of a dump: a count locks the table's indexes too, and thousands of those for as long as the dump takes
# would leave no room in the live server's table of locks.
BEFORE_COUNTING = "SAVEPOINT counting;\n"
COUNT_WITHIN = f"{_COUNT}, 'ROLLBACK TO SAVEPOINT counting' {_TABLES} ORDER BY c.oid \\gexec\n"

_SCHEMA = f"""SELECT encode(sha256(convert_to(coalesce(string_agg(line, E'\\n' ORDER BY line COLLATE "C"), ''), 'UTF8')), 'hex') FROM (
  SELECT concat_ws(' ', 'column', c.oid::regclass, c.relkind, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
    a.attidentity, a.attgenerated, pg_get_expr(b.adbin, b.adrelid)) AS line
  FROM pg_attribute a LEFT JOIN pg_attrdef b ON b.adrelid = a.attrelid AND b.adnum = a.attnum
  JOIN (SELECT c.oid, c.relkind {_RELATIONS}) c ON c.oid = a.attrelid WHERE a.attnum > 0 AND NOT a.attisdropped
  UNION ALL SELECT concat_ws(' ', 'constraint', o.conrelid::regclass, o.conname, pg_get_constraintdef(o.oid))
  FROM pg_constraint o JOIN pg_namespace n ON n.oid = o.connamespace WHERE {_USERS_OWN.format(kind="'pg_constraint'", oid="o.oid")}
  UNION ALL SELECT concat_ws(' ', 'index', pg_get_indexdef(i.indexrelid)) FROM pg_index i WHERE i.indrelid IN (SELECT c.oid {_TABLES})
  UNION ALL SELECT concat_ws(' ', 'view', c.oid::regclass, pg_get_viewdef(c.oid))
  FROM (SELECT c.oid, c.relkind {_RELATIONS}) c WHERE c.relkind IN ('v', 'm')
  UNION ALL SELECT concat_ws(' ', 'routine', pg_get_functiondef(p.oid)) {_ROUTINES}
  UNION ALL SELECT concat_ws(' ', 'trigger', pg_get_triggerdef(t.oid)) FROM pg_trigger t
  WHERE NOT t.tgisinternal AND t.tgrelid IN (SELECT c.oid {_RELATIONS})
  UNION ALL SELECT concat_ws(' ', 'value', e.enumtypid::regtype, e.enumsortorder, e.enumlabel) FROM pg_enum e
  UNION ALL SELECT concat_ws(' ', 'extension', x.extname) FROM pg_extension x
) AS lines"""

SCHEMA = f"SELECT json_build_object('schema', ({_SCHEMA}));\n"
# A view is described under a lock of what it shows: somebody may be changing that and not finish.
STATE = f"""{PLAIN}SET lock_timeout = '{LOCK_WAIT}s'; SELECT json_build_object('schema', ({_SCHEMA}), 'server', current_setting('server_version'),
  'bytes', pg_database_size(current_database()));
"""

# What one may do who is to replace :'live'; a row of nulls where there is no such database.
RIGHTS = """SELECT json_build_object('exists', d.oid IS NOT NULL, 'create', r.rolsuper OR r.rolcreatedb,
  'own', d.oid IS NULL OR r.rolsuper OR pg_has_role(d.datdba, 'MEMBER'), 'user', r.rolname)
FROM pg_roles r LEFT JOIN pg_database d ON d.datname = :'live' WHERE r.rolname = current_user;
"""

CREATE = """SELECT 'CREATE DATABASE ' || quote_ident(:'new') || ' TEMPLATE template0' || coalesce((
  SELECT format(' OWNER %I ENCODING %L LC_COLLATE %L LC_CTYPE %L', pg_get_userbyid(datdba), pg_encoding_to_char(encoding), datcollate, datctype)
    || CASE datlocprovider WHEN 'i' THEN format(' LOCALE_PROVIDER icu ICU_LOCALE %L', locale)
       WHEN 'b' THEN format(' LOCALE_PROVIDER builtin BUILTIN_LOCALE %L', locale) ELSE ' LOCALE_PROVIDER libc' END
    || coalesce(' ICU_RULES ' || quote_literal(rules), '')
    || coalesce(' TABLESPACE ' || quote_ident(nullif(spcname, 'pg_default')), '') || format(' CONNECTION LIMIT %s', datconnlimit)
  FROM (SELECT d.*, t.spcname, coalesce(to_jsonb(d)->>'datlocale', to_jsonb(d)->>'daticulocale') AS locale,
      to_jsonb(d)->>'daticurules' AS rules
    FROM pg_database d JOIN pg_tablespace t ON t.oid = d.dattablespace WHERE d.datname = :'live') d), '')
\\gexec
"""

# Settings and privileges of the database itself, which no archive restored into another name brings along. A setting that
# is a list is kept as written, any other is a literal.
CARRY = """SELECT format('ALTER %s SET %I TO %s',
    CASE s.setrole WHEN 0 THEN format('DATABASE %I', :'new')
      ELSE format('ROLE %I IN DATABASE %I', pg_get_userbyid(s.setrole), :'new') END,
    split_part(one, '=', 1),
    CASE WHEN split_part(one, '=', 1) IN ('search_path', 'temp_tablespaces', 'local_preload_libraries', 'session_preload_libraries')
      THEN coalesce(nullif(substr(one, strpos(one, '=') + 1), ''), '''''') ELSE quote_literal(substr(one, strpos(one, '=') + 1)) END)
FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase AND d.datname = :'live', unnest(s.setconfig) AS one
\\gexec
SELECT format('REVOKE ALL ON DATABASE %I FROM PUBLIC', :'new') FROM pg_database WHERE datname = :'live' AND datacl IS NOT NULL
\\gexec
SELECT format('GRANT %s ON DATABASE %I TO %s%s', a.privilege_type, :'new',
    CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END,
    CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
FROM pg_database d, aclexplode(d.datacl) a WHERE d.datname = :'live' AND a.grantee <> d.datdba
\\gexec
SELECT format('COMMENT ON DATABASE %I IS %L', :'new', shobj_description(oid, 'pg_database')) FROM pg_database
WHERE datname = :'live' AND shobj_description(oid, 'pg_database') IS NOT NULL
\\gexec
"""

EXIST = "SELECT json_agg(datname) FROM pg_database WHERE datname IN (:'live', :'new', :'old');\n"


def closed(name: str) -> str:
    """Return what keeps everybody out of a database, and puts out who is in; `name` is a variable's."""
    return f"""ALTER DATABASE :"{name}" ALLOW_CONNECTIONS false;
SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE datname = :'{name}' AND usesysid IS NOT NULL \\g /dev/null
"""


def opened(name: str) -> str:
    """Return what lets people into a database again."""
    return f'ALTER DATABASE :"{name}" ALLOW_CONNECTIONS true;\n'


def renamed(*pairs: tuple[str, str]) -> str:
    """Return what renames databases, all or none; pairs of variables' names."""
    return "BEGIN;\n" + "".join(f'ALTER DATABASE :"{a}" RENAME TO :"{b}";\n{opened(b)}' for a, b in pairs) + "COMMIT;\n"

"""Every kind of source that this agent knows."""

from __future__ import annotations

from backup.agent.directory import Directory
from backup.agent.mariadb import MariaDb
from backup.agent.postgres import Postgres
from backup.agent.source import Kinds
from backup.agent.sqlite import Sqlite

KINDS = Kinds({"sqlite": Sqlite, "directory": Directory, "postgres": Postgres, "mariadb": MariaDb})

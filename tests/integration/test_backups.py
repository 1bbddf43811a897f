"""Backups as their user lives with them: before every deploy, by hand, listed, proven, explained, expired, and what a rollback says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.project import REPOSITORY, App, Done, Server, assert_same, blog_configuration
from tests.integration.test_ten_deploys import paint, posts

pytestmark = pytest.mark.integration
POSTS = {"kind": "sqlite", "volume": "blog-data", "path": "blog.db", "smoke": "SELECT count(*) >= 0 FROM posts"}
NOTES = {"kind": "sqlite", "volume": "blog-data", "path": "notes.db"}
UPLOADS = {"kind": "directory", "volume": "blog-data", "path": "uploads"}
WORN = """
import os, sqlite3
d = sqlite3.connect('notes.db')
d.execute('CREATE TABLE notes (note TEXT)')
d.executemany('INSERT INTO notes VALUES (?)', [(str(n) * 50,) for n in range(3000)])
d.commit()
with open('notes.db', 'r+b') as file:
    file.seek(8 * 4096)
    file.write(os.urandom(4096))
"""


@pytest.fixture(scope="module")
def log_app(root: Path, servers: list[Server], tag: str) -> Iterator[App]:
    """The blog once more, under a name of its own: what happens to its data here harms no other test."""
    known = blog_configuration(f"log-{tag}")
    app = App(root, servers, {**known, "environments": {"sandbox": {"domain": "log.localhost"}}}, "log.toml")
    shutil.copytree(REPOSITORY / "example", root / "example", dirs_exist_ok=True)
    app.deploy()
    yield app
    for server in servers:
        server.root(
            f"docker ps -aq --filter label=dev.tidegate.app={app.name} | xargs -r docker rm -f; docker volume rm {app.name}_blog-data"
        )
        server.root(f"rm -rf /srv/tidegate/{app.name} /srv/tidegate/edge/apps/{app.name}.conf")


@pytest.fixture
def log(log_app: App) -> App:
    """The app as the last test left it, described as it comes."""
    log_app.configure()
    return log_app


def backups(app: App) -> list[dict[str, dict[str, Any]]]:
    """Return the backups of every server by their ids."""
    found = app.inv("backup.list", "--json").document["servers"].values()
    return [{one["id"]: one for one in server["backups"]} for server in found]


def data(app: App) -> str:
    return f"/var/lib/docker/volumes/{app.name}_blog-data/_data"


def evolve(app: App) -> None:
    """Add a migration to the code."""
    plain = (REPOSITORY / "example/blog/migrations.py").read_text()
    more = '    {"sqlite": "ALTER TABLE posts ADD COLUMN mood TEXT", "postgres": "ALTER TABLE posts ADD COLUMN mood TEXT"},\n)\n'
    (app.root / "example/blog/migrations.py").write_text(plain.replace("\n)\n", f"\n{more}", 1))


def made(app: App) -> list[str]:
    """Return what a deploy makes: containers, releases, and who answers."""
    releases = [server.root(f"ls /srv/tidegate/{app.name}/releases") for server in app.servers]
    return [*map(str, app.containers()), *releases, *app.serving()]


def named(app: App, server: Server, release: str) -> str:
    """Return the backup that a release's manifest names."""
    return str(json.loads(server.root(f"cat /srv/tidegate/{app.name}/releases/{release}.json"))["backup"])


def test_every_deploy_saves_the_data_first_and_a_rollback_says_what_it_leaves(log: App) -> None:
    first = log.serving()[0]
    with log.users(40, write=True) as users:
        paint(log, "autumn")
        second = log.deploy().document
        said = log.inv("deploy.rollback", "--dry-run").said
        assert said.count(f"the schema has not moved since {first} served; the rollback leaves the data as it is") == 2, said
        assert (
            said.count(f"backup {second['backup']} has the data as {first} left it; restoring it too would lose the last ") == 2
        )
        evolve(log)
        third = log.deploy().document
        said = log.inv("deploy.rollback", "--dry-run").said
        assert said.count(f"the schema of posts has moved since {second['release']} served") == 2, said
        assert third["backup"] in said
    users.nobody_noticed()
    for server, known, wrote in zip(log.servers, backups(log), users.acknowledged, strict=True):
        assert set(wrote) <= posts(server, log.domain)
        for deployed in (second, third):
            found = known[deployed["backup"]]
            assert (found["types"], found["before"], found["good"]) == (["deploy"], deployed["release"], True)
            assert named(log, server, deployed["release"]) == deployed["backup"]
        assert not named(log, server, first), "there was nothing to save before the first one"
        rows = [known[one["backup"]]["items"][0]["counts"]["posts"] for one in (second, third)]
        assert 0 < rows[0] < rows[1] < len(posts(server, log.domain))


@pytest.mark.slow
def test_what_cannot_be_saved_is_not_deployed_over(log: App) -> None:
    """Whatever the reason, before anything was touched; leaving the backup out takes a yes, and is written down."""
    for server in log.servers:
        server.root(f"cd {data(log)}; echo 'no database at all, only words that take some room' >words; python3 -c \"{WORN}\"")
    paint(log, "winter")
    before = log.look()
    assert "no terminal to ask on: give --yes" in log.inv("deploy", "--skip-backup", code=3).said
    assert_same(before, log.look())
    served = made(log)
    with log.users(40) as users:
        for source, why in ((UPLOADS, "it is not there"), ({**NOTES, "path": "words"}, "file is not a database")):
            log.configure(backup={"sources": {"posts": POSTS, "more": source}})
            refused = log.inv("deploy", code=3).said
            assert "deploy refused, nothing was changed" in refused
            assert refused.count("more cannot be backed up: ") >= 2
            assert why in refused
        log.configure(backup={"sources": {"posts": POSTS, "notes": NOTES}})
        undone = log.inv("deploy", code=1).said
        assert " lacks notes" in undone
        assert "database disk image is malformed" in undone
        assert made(log) == served
    users.nobody_noticed()
    assert [one["result"] for one in log.last_operations()] == ["undone", "undone"]
    log.configure()
    log.inv("deploy", "--skip-backup", "--yes")
    assert made(log) != served
    journals = [server.root(f"tail -n 1 /srv/tidegate/{log.name}/journal.jsonl") for server in log.servers]
    assert [json.loads(one)["backup"] for one in journals] == ["skipped", "skipped"]


def aged(app: App, id: str, year: int) -> None:
    """Have a backup's manifest say, where there is one, that it is from another year; 0 for the one of its id."""
    change = f's/"started": "[0-9]*-/"started": "{year or id[:4]}-/'
    for server in app.servers:
        server.root(f"cd /srv/tidegate/{app.name}/backups; [ ! -e {id} ] || sed -i '{change}' {id}/manifest.json")


def by_server(done: Done) -> list[Any]:
    """Return what the command answered for each server."""
    return list(done.document["servers"].values())


def test_backups_are_taken_listed_proven_pinned_explained_and_expired_on_every_server(log: App) -> None:
    log.configure(backup={"sources": {"posts": POSTS}, "minimum": 1})
    taken = by_server(log.inv("backup.run", "--json"))
    assert [(one["result"], one["types"], one["deleted"]) for one in taken] == [("complete", ["manual"], [])] * 2
    (old,) = {one["id"] for one in taken}
    said = log.inv("backup.run", "--type", "daily").said
    assert said.count("decoded in full") == 2
    (new,) = {id for known in backups(log) for id in known if id > old}
    assert old in log.inv("backup.list").said

    proofs = by_server(log.inv("backup.verify", "--id", new, "--level", "restore", "--json"))
    assert [(one["id"], one["level"], one["ok"]) for one in proofs] == [(new, "restore", True)] * 2
    assert [one["last_attempt"]["ok"] for one in by_server(log.inv("backup.status", "--json"))] == [True, True]

    aged(log, old, 2020)
    log.inv("backup.pin", old, "before the big 'import'")
    assert "before the big 'import'" in log.inv("backup.explain").said
    log.inv("backup.unpin", old, "--json")
    assert [list(one["due"]) for one in by_server(log.inv("backup.explain", "--json"))] == [[old], [old]]
    assert [one["deleted"] for one in by_server(log.inv("backup.prune", "--dry-run", "--json"))] == [[], []]
    assert [one["deleted"] for one in by_server(log.inv("backup.prune", "--json"))] == [[old], [old]]
    assert all(old not in known and new in known for known in backups(log))

    program = [one for one in log.inv("server.check", "--json").document if one["what"] == "backup program"]
    assert [(one["ok"], len(one["found"])) for one in program] == [(True, 12)] * 2


@pytest.mark.slow
def test_what_fails_on_one_server_is_told_and_hides_nothing_of_the_other(log: App) -> None:
    for server in log.servers:
        server.root(f'cd {data(log)}; rm -f notes.db; python3 -c "{WORN}"')
    log.servers[0].root(
        f'cd {data(log)}; rm notes.db; python3 -c \'import sqlite3; sqlite3.connect("notes.db").execute("CREATE TABLE notes (note)")\''
    )
    log.configure(backup={"sources": {"posts": POSTS, "notes": NOTES}})
    done = log.inv("backup.run", "--json", code=6).document
    (good,), (bad,) = done["servers"].items(), done["errors"].items()
    assert (good[1]["result"], bad[1]["exit_code"]) == ("complete", 6)
    assert (good[0] != bad[0], "lacks notes" in bad[1]["error"]) == (True, True)
    states = log.inv("backup.list").said
    assert "partial: lacks notes" in states
    for id in set().union(*backups(log)):
        aged(log, id, 2020)
    stale = log.inv("backup.status", "--json", code=3)
    assert [one["stale"] for one in by_server(stale)] == [True, True]
    for id in set().union(*backups(log)):
        aged(log, id, 0)
    log.inv("backup.status")

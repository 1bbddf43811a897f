"""Everything that goes wrong around a backup on a real server; after each: nothing half, nothing good lost, clear words, and the next one is good."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from backup.schedule_files import SECURE_PATH, for_cron, log_of
from deploy import sandbox_server
from ops.this_machine import local_client
from tests.integration.project import App, Done, Server, shaky_configuration, wait_until

pytestmark = pytest.mark.integration
ONE = ("-e", "one")
PASSWORD = "tide$w/ür"
DATA = '/srv/it\'s "the" $HOME'
DATABASE = "we\"ird 'db'"
FILES = {"kind": "directory", "path": f"{DATA}/up loads; true"}
POSTS = {"kind": "sqlite", "path": f"{DATA}/posts & `more`.db"}
FILL = f"""
import os, sqlite3
home = {DATA!r}
os.makedirs(home + '/up loads; true', exist_ok=True)
for n in range(20):
    open(home + f'/up loads; true/photo {{n}}', 'wb').write(os.urandom(50_000))
d = sqlite3.connect(home + '/posts & `more`.db')
d.execute('CREATE TABLE IF NOT EXISTS "it''s" (a)')
d.executemany('INSERT INTO "it''s" VALUES (?)', [(os.urandom(500),) for n in range(2000)])
d.commit()
"""
# In zstd's place: it tells that it was started, and goes on only when it is let in.
GATE = """
mkfifo -m 600 /run/gate /run/held
cat >/usr/local/bin/zstd <<'EOF'
#!/bin/sh
echo held >/run/held
read -r _ </run/gate
exec /usr/bin/zstd "$@"
EOF
chmod 755 /usr/local/bin/zstd
"""
OPEN = 'rm -f /usr/local/bin/zstd; for p in /run/held /run/gate; do timeout 0.2 sh -c "echo go >$p" & done; wait; rm -f /run/gate /run/held'
LEFT = """
pgrep -a -x 'tar|zstd|xz|gzip'; pgrep -af '[b]ackup.pyz'
docker ps -a --filter label=dev.tidegate.backup=%(app)s --format '{{.Names}}'
ls -d /srv/tidegate/%(app)s/.toolbox-* /srv/tidegate/%(app)s/backups/.partial-* /srv/tidegate/%(app)s/backups/.trash-* 2>/dev/null
true
"""


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


@dataclass
class Vault:
    """An app with data of every awkward name, on one server; it is never deployed unless a test says so."""

    app: App
    server: Server

    @property
    def folder(self) -> str:
        return f"/srv/tidegate/{self.app.name}"

    @property
    def container(self) -> str:
        return f"{self.app.name}-services-db-1"

    @property
    def database(self) -> dict[str, Any]:
        return {"kind": "postgres", "container": self.container, "user": "blog", "database": DATABASE}

    def saves(self, reserve: str = "1m", **sources: dict[str, Any]) -> None:
        """Say in the configuration what is saved."""
        self.app.configure(backup={"sources": sources, "reserve": reserve})

    def inv(self, *words: str, code: int | None = 0) -> Done:
        return self.app.inv(*words, *ONE, code=code)

    def error(self, *words: str, code: int) -> dict[str, Any]:
        """Run a command that fails on the server, and return what scripts get to know of that."""
        (found,) = self.inv(*words, "--json", code=code).document["errors"].values()
        assert found["exit_code"] == code
        return dict(found)

    def run(self) -> dict[str, Any]:
        """Take a backup, which must be complete."""
        (found,) = self.inv("backup.run", "--json").document["servers"].values()
        assert found["result"] == "complete"
        return dict(found)

    def there(self) -> set[str]:
        """Return everything that has a backup's name."""
        return set(self.server.root(f"ls {self.folder}/backups 2>/dev/null | grep -v history.jsonl || true").split())

    def left(self) -> str:
        """Return processes, containers and folders that a backup may have while it runs and never afterwards."""
        return self.server.root(LEFT % {"app": self.app.name})

    def is_clean(self) -> None:
        wait_until(lambda: not self.left(), f"left behind: {self.left()}", 20)

    def is_whole(self) -> None:
        """Fail unless all that has a backup's name can be decoded to its end."""
        command = f"/usr/bin/python3 -I /usr/local/lib/tidegate/backup.pyz verify --app {self.app.name}"
        self.server.root(
            f"cd {self.folder}/backups; for id in 2*; do {command} $id >/run/said || {{ cat /run/said; exit 1; }}; done"
        )

    def metrics(self) -> dict[str, float]:
        """Return the figures for node_exporter, without labels but those of the source."""
        lines = self.server.root(f"cat /srv/tidegate/metrics/{self.app.name}_backup.prom").splitlines()
        pairs = [line.removeprefix("tidegate_backup_").rsplit(" ", 1) for line in lines if not line.startswith("#")]
        assert all(f'app="{self.app.name}",environment="one"' in name for name, _ in pairs)
        return {name.partition("{")[0]: float(value) for name, value in pairs}

    def attempts(self) -> list[dict[str, Any]]:
        """Return what is written down of every run that ended."""
        lines = self.server.root(f"cat {self.folder}/backups/history.jsonl").splitlines()
        return [one for one in map(json.loads, lines) if one["event"] == "run"]

    @contextmanager
    def held(self, command: str = "backup.run") -> Iterator[subprocess.Popen[str]]:
        """Run a backup, by that command, that stands still in the middle of writing its first file."""
        self.server.root(GATE)
        try:
            with self.app.start(command, *ONE) as process:
                try:
                    self.server.root("timeout 60 cat /run/held")
                    yield process
                finally:
                    self.server.root(OPEN)
                    process.communicate(timeout=60)
        finally:
            self.server.root(OPEN)


@pytest.fixture(scope="module")
def vault_app(root: Path, servers: list[Server], tag: str) -> Iterator[Vault]:
    place = tomllib.loads((root / ".tidegate/environments/sandbox.toml").read_text())["environments"]["sandbox"]
    place.pop("domains", None)
    known = shaky_configuration(f"vault-{tag}", "vault.localhost")
    app = App(root, servers[:1], {**known, "environments": {**known["environments"], "one": {**place, "hosts": place["hosts"][:1], "domain": "vault.localhost"}}}, "vault.toml")  # fmt: skip
    server = servers[0]
    server.root(f"python3 -c {_quoted(FILL)}")
    yield Vault(app, server)
    for label in (f"com.docker.compose.project={app.name}-services", f"dev.tidegate.backup={app.name}"):
        server.root(f"docker ps -aq --filter label={label} | xargs -r docker rm -f -v")
    server.root(f"rm -rf /srv/tidegate/{app.name} {_quoted(DATA)}; docker volume rm -f {app.name}-services_db-data")


@pytest.fixture
def vault(vault_app: Vault) -> Vault:
    vault_app.saves(files=FILES, posts=POSTS)
    return vault_app


@pytest.fixture(scope="module")
def _services(vault_app: Vault) -> None:
    """PostgreSQL beside the app, as its user brings it up, with a database that needs quoting everywhere."""
    secrets = vault_app.app.root / ".env.one"
    secrets.touch(mode=0o600)
    secrets.write_text(f"POSTGRES_PASSWORD='{PASSWORD}'\nWRONG='not this one'\n")
    vault_app.app.configure(services={"compose": "docker/services.yaml", "secrets": ["POSTGRES_PASSWORD"]})
    vault_app.app.inv("services.up", *ONE, timeout=400)
    psql = f"docker exec -i {vault_app.container} psql -v ON_ERROR_STOP=1 -U blog"
    name, place = DATABASE.replace('"', '""'), "dbname='" + DATABASE.replace("'", "\\'") + "'"
    vault_app.server.root(f"{psql} <<'EOF'\nCREATE DATABASE \"{name}\"\nEOF")
    table = 'CREATE TABLE "it\'s" AS SELECT generate_series(1, 20000) AS id'
    vault_app.server.root(f"{psql} -d {_quoted(place)} <<'EOF'\n{table}\nEOF")


@pytest.fixture
def databases(vault: Vault, _services: None) -> Vault:
    """The same with a PostgreSQL database, which runs."""
    vault.server.root(f"docker start {vault.container} >/dev/null")
    health = f"docker inspect -f '{{{{.State.Health.Status}}}}' {vault.container}"
    wait_until(lambda: vault.server.root(health) == "healthy\n", "the database does not come up", 60)
    vault.saves(files=FILES, posts=POSTS, db=vault.database)
    return vault


def test_a_second_run_is_told_of_the_first_and_what_only_looks_is_not_kept_out(vault: Vault) -> None:
    before = {vault.run()["id"]}
    with vault.held() as process:
        for command in ("backup.run", "backup.prune", "backup.verify"):
            busy = vault.error(command, code=4)
            assert busy["error"] == "another run is at work on the backups of this app"
            assert busy["cause"].startswith("a backup, process ")
        assert "good" in vault.inv("backup.list").out
        vault.inv("backup.status")
        assert "another run is at work on the backups of this app" in vault.inv("deploy", code=4).said
        assert vault.there() == before
        os.killpg(process.pid, signal.SIGKILL)
        vault.is_clean()
    assert vault.there() == before
    assert vault.run()["id"] in vault.there() - before


def test_a_deploy_that_is_stopped_during_its_backup_leaves_neither_release_nor_half_a_backup(vault: Vault) -> None:
    before = vault.there()
    with vault.held("deploy") as process:
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 1, out + err
        assert "undone" in out + err
        assert "Traceback" not in out + err
        vault.is_clean()
    assert vault.there() == before
    assert vault.app.containers() == [[]]
    assert vault.server.root(f"ls {vault.folder}/releases 2>/dev/null || true") == ""


@pytest.mark.parametrize(("end", "code", "words"), [
    ("Ctrl-C and more", 1, "stopped, and undone"),
    ("the line is cut", 3, "the connection was lost"),
    ("the program is killed", 1, "backup program ended"),
])  # fmt: skip
def test_a_run_that_ends_in_the_middle_leaves_nothing(vault: Vault, end: str, code: int, words: str) -> None:
    before = vault.there()
    with vault.held() as process:
        if end == "Ctrl-C and more":
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                os.killpg(process.pid, number)
        else:
            vault.server.root("pkill -9 -f " + ("'^sshd.*: deploy'" if end == "the line is cut" else "'[b]ackup.pyz run'"))
        out, err = process.communicate(timeout=60)
        assert process.returncode == code, out + err
        assert words in out + err
        assert "Traceback" not in out + err
        if end == "the program is killed":
            vault.server.root(OPEN)
            wait_until(lambda: "zstd" not in vault.left(), "the compressor outlives the program")
        else:
            vault.is_clean()
    assert vault.there() == before
    assert vault.run()["id"] in vault.there() - before
    vault.is_clean()


@pytest.mark.parametrize("what", [
    pytest.param("run", marks=pytest.mark.slow),
    pytest.param("verify --level restore", marks=pytest.mark.slow),
    pytest.param("scheduled", marks=pytest.mark.slow),
])  # fmt: skip
def test_whenever_the_program_is_killed_nothing_half_has_a_name_and_the_next_run_is_good(databases: Vault, what: str) -> None:
    vault = databases
    first = vault.run()
    command = f"env -i PATH={SECURE_PATH} /usr/bin/python3 -I /usr/local/lib/tidegate/backup.pyz {what} --app {vault.app.name}"
    began = time.monotonic()
    vault.server.root(command)
    seconds, killed = time.monotonic() - began, 0
    for tenth in range(1, 11):
        ended = vault.server.root(
            f"exec 2>/dev/null; timeout -s KILL {seconds * tenth / 10:.2f} {command} >/run/said; echo $?"
        ).strip()
        assert ended in ("0", "137"), vault.server.root("cat /run/said")
        killed += ended == "137"
    assert killed >= (4 if what == "run" else 1)
    assert first["id"] in vault.there()
    vault.is_whole()
    last = vault.run()
    vault.is_clean()
    rows = {item["source"]: item["counts"] for item in last["items"]}
    assert list(rows["db"].values()) == [20000]
    assert list(rows["posts"].values()) == [2000]
    assert rows["files"] == {"entries": 21}


@pytest.mark.slow
def test_an_engine_that_dies_during_a_dump_costs_that_backup_and_nothing_else(databases: Vault) -> None:
    vault = databases
    vault.saves(db=databases.database)
    before = vault.there()
    with vault.held() as process:
        vault.server.root("kill -9 $(cat /run/docker.pid); while kill -0 $(cat /run/docker.pid) 2>&-; do sleep 0.02; done; true")
        sandbox_server.wait_ready(local_client(), vault.server.known.name)
        vault.server.root(OPEN)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 1, out + err
    assert "nothing could be saved" in out + err
    assert vault.there() == before
    assert vault.metrics()["last_attempt_success"] == 0
    vault.server.root(f"docker start {vault.container} >/dev/null")
    wait_until(lambda: vault.inv("backup.run", code=None).code == 0, "no backup can be taken any more", 60)
    vault.is_clean()


def test_a_source_that_cannot_be_saved_stops_a_deploy_and_makes_a_backup_partial(vault: Vault) -> None:
    vault.server.root(f"head -c 9000 /dev/urandom >{_quoted(DATA)}/words")
    vault.saves(files=FILES, db={"kind": "sqlite", "path": f"{DATA}/words"})
    _refused(vault, "file is not a database")
    assert "file is not a database" in vault.error("backup.run", code=6)["cause"]
    assert vault.metrics()["last_attempt_success"] == 0
    vault.is_clean()


@pytest.mark.slow
def test_a_database_that_cannot_be_saved_stops_a_deploy_and_makes_a_backup_partial(databases: Vault) -> None:
    vault = databases
    address = vault.server.root(
        f"docker inspect -f '{{{{range .NetworkSettings.Networks}}}}{{{{.IPAddress}}}} {{{{end}}}}' {vault.container}"
    ).split()[0]
    network = {
        "kind": "postgres",
        "address": address,
        "image": "postgres:17",
        "user": "blog",
        "database": DATABASE,
        "password": "POSTGRES_PASSWORD",
    }
    vault.saves(db=network)
    assert list(vault.run()["items"][0]["counts"].values()) == [20000]
    for source, why in (
        ({**network, "password": "WRONG"}, "password authentication failed"),
        ({**vault.database, "database": "gone"}, '"gone" does not exist'),
    ):
        vault.saves(posts=POSTS, db=source)
        _refused(vault, why)
        assert why in vault.error("backup.run", code=6)["cause"]
    vault.server.root(f"docker stop -t 5 {vault.container}")
    why = f"database container {vault.container} is not running"
    vault.saves(posts=POSTS, db=vault.database)
    _refused(vault, why)
    assert f"db: {why}" in vault.error("backup.run", code=6)["cause"]
    vault.saves(db=vault.database)
    assert vault.error("backup.run", code=1)["error"] == "nothing could be saved"
    metrics = vault.metrics()
    assert (metrics["last_attempt_success"], metrics["source_success"]) == (0, 0)
    assert metrics["last_success_timestamp_seconds"] < metrics["last_attempt_timestamp_seconds"]
    vault.is_clean()


def _refused(vault: Vault, why: str) -> None:
    before = vault.server.look()
    said = vault.inv("deploy", code=3).said
    assert "deploy refused, nothing was changed" in said
    assert "db cannot be backed up: " in said
    assert why in said
    assert [line for line in vault.server.look().splitlines() if "backup.json" not in line] == [
        line for line in before.splitlines() if "backup.json" not in line
    ]
    assert PASSWORD not in said


@pytest.mark.slow
def test_a_full_disk_fails_the_run_and_takes_nothing_that_was_good(vault: Vault) -> None:
    store = f"{vault.folder}/backups"
    vault.run()
    try:
        vault.server.root(f"mount -t tmpfs -o size=6m,mode=700 full {store}")
    except AssertionError as error:
        pytest.skip(f"no file system can be mounted in the server: {error}")
    big = _quoted(f"{FILES['path']}/big")
    try:
        vault.saves(files=FILES, reserve="0")
        good = vault.run()
        vault.server.root(f"head -c 20000000 /dev/urandom >{big}")
        failed = vault.error("backup.run", code=1)
        assert failed["error"] == "nothing could be saved"
        assert "No space left on device" in failed["cause"]
        assert vault.there() == {good["id"]}
        vault.is_clean()
        metrics, last = vault.metrics(), vault.attempts()[-1]
        assert (metrics["last_attempt_success"], metrics["good_copies"], metrics["bytes"]) == (0, 1, good["bytes"])
        assert not last["ok"]
        assert "No space left" in last["error"]
        vault.is_whole()
        vault.server.root(f"head -c 9000000 /dev/zero >{store}/filler || true")
        assert vault.error("backup.run", code=3)["error"].startswith("0 MB are free for backups")
        vault.inv("backup.prune")
        vault.inv("backup.status")
        vault.server.root(f"rm {store}/filler")
        assert vault.metrics()["last_attempt_success"] == 0
        vault.saves(files=FILES, reserve="1g")
        assert "MB are free for backups" in vault.error("backup.run", code=3)["error"]
        vault.server.root(f"rm {big}")
        vault.saves(files=FILES, reserve="0")
        vault.run()
        assert vault.metrics()["last_attempt_success"] == 1
    finally:
        vault.server.root(f"rm -f {big}; umount {store}")


@pytest.mark.slow
def test_without_its_compressor_another_is_taken_and_nothing_is_held_against_older_backups(vault: Vault) -> None:
    old = vault.run()["id"]
    vault.server.root("mv /usr/bin/zstd /usr/bin/zstd.away")
    try:
        done = vault.inv("backup.run", "--json")
        (taken,) = done.document["servers"].values()
        assert (taken["result"], taken["compression"]) == ("complete", "gzip")
        assert "zstd is not installed here, gzip is used instead" in done.err
        vault.inv("backup.verify", "--id", taken["id"])
        assert "zstd is not installed here" in vault.error("backup.verify", "--id", old, code=1)["error"]
    finally:
        vault.server.root("mv /usr/bin/zstd.away /usr/bin/zstd")
    vault.inv("backup.verify", "--id", old)
    vault.inv("backup.status")


def test_what_is_to_be_encrypted_and_cannot_be_is_not_kept_at_all(vault: Vault) -> None:
    before = vault.there()
    if vault.server.root("command -v age || true"):
        pytest.skip("age is installed on the server")
    key = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"
    vault.app.configure(backup={"sources": {"files": FILES}, "reserve": "1m", "recipients": [key]})
    assert "age is not installed here" in vault.error("backup.run", code=1)["cause"]
    assert vault.there() == before
    vault.is_clean()


def test_the_line_that_cron_runs_works_in_an_empty_environment_and_tells_failures(vault: Vault) -> None:
    vault.inv("backup.status", code=None)
    line = next(one for one in for_cron(vault.app.name, 7)[0].text.splitlines() if one.startswith("7 ")).partition(" root ")[2]
    log = log_of(vault.app.name)
    script = f"cat >/run/line <<'EOF'\n{line}\nEOF\ncd /; env -i HOME=/root LOGNAME=root SHELL=/bin/sh PATH={SECURE_PATH} /bin/sh -c \"$(cat /run/line)\" </dev/null; echo $?"
    vault.server.root(f"rm -rf {log} {vault.folder}/backups")
    assert vault.server.root(script) == "0\n"
    (id,) = vault.there()
    assert json.loads(vault.server.root(f"cat {vault.folder}/backups/{id}/manifest.json"))["types"] == [
        "daily",
        "monthly",
        "weekly",
    ]
    assert "saving files" in vault.server.root(f"cat {log}; stat -c %a {log}")
    good = vault.metrics()
    assert (good["last_attempt_success"], good["good_copies"], good["frozen"], good["expected_interval_seconds"]) == (
        1,
        1,
        0,
        86400,
    )
    assert vault.server.root(f"stat -c '%a %U' /srv/tidegate/metrics/{vault.app.name}_backup.prom") == "644 root\n"

    manifest = f"{vault.folder}/backups/{id}/manifest.json"
    vault.server.root(f'mv {_quoted(DATA)} /srv/away; sed -i \'s/"started": "2/"started": "1/\' {manifest}')
    try:
        assert vault.server.root(script) == "1\n"
    finally:
        vault.server.root(f"mv /srv/away {_quoted(DATA)}")
    assert "failed: nothing could be saved: files: it is not there; posts: it is not there" in vault.server.root(f"cat {log}")
    assert vault.there() == {id}
    assert vault.metrics()["last_attempt_success"] == 0

"""A restore on a real server while users are there; and one that is killed in the middle."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from backup import package
from backup.agent.model import Settings, Source
from ops.agent.load import Load, Sample
from ops.this_machine import local_client
from tests.integration.project import App, Server, wait_until

pytestmark = pytest.mark.integration
Record = Any
PROGRAM = "/root/backup.pyz"
WORK = "/root/restoring.py"
DRIVE = """
import json, signal, subprocess, sys, time
phase, number, *command = sys.argv[1:]
path = f'/srv/tidegate/{command[command.index("--app") + 1]}/restore.json'
child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
while child.poll() is None:
    try:
        if json.load(open(path))['phase'] == phase:
            break
    except FileNotFoundError:
        time.sleep(0.0005)
child.send_signal(getattr(signal, number))
print(child.wait())
"""


@dataclass
class Agent:
    """The program on one server."""

    server: Server
    app: str

    def install(self) -> None:
        source = Source("posts", "sqlite", volume=f"{self.app}_blog-data", path="blog.db")
        settings = Settings(self.app, "sandbox", "here", (source,), reserve=0)
        settings_path = f"srv/tidegate/{self.app}/backup.json"
        contents = {PROGRAM[1:]: package.program(), WORK[1:]: DRIVE.encode(), settings_path: settings.to_json().encode()}
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as members:
            for path, content in contents.items():
                member = tarfile.TarInfo(path)
                member.size, member.mode = len(content), 0o600
                members.addfile(member, io.BytesIO(content))
        local_client().api.put_archive(self.server.known.name, "/", archive.getvalue())

    def __call__(self, what: str, *rest: str) -> Any:
        """Run a command of the program; return its result."""
        return json.loads(self.server.root(f"{self.command(what, *rest)}").splitlines()[-1])["value"]

    def command(self, what: str, *rest: str) -> str:
        return f"python3 -I {PROGRAM} {what} --app {self.app} --json {' '.join(rest)}"

    def killed(self, phase: str, number: str, backup: str) -> int:
        """Restore, and send a signal as soon as restore.json tells that phase; return the exit code."""
        return int(self.server.root(f"python3 -I {WORK} {phase} {number} {self.command('restore', backup)}"))

    @property
    def file(self) -> str:
        return f"/var/lib/docker/volumes/{self.app}_blog-data/_data/blog.db"

    def sql(self, text: str, path: str = "") -> list[list[Any]]:
        code = "import json, sqlite3, sys; d = sqlite3.connect(sys.argv[1]); print(json.dumps(d.execute(sys.argv[2]).fetchall())); d.commit()"
        found: list[list[Any]] = json.loads(self.server.root(f"python3 -c '{code}' '{path or self.file}' \"{text}\""))
        return found

    def titles(self, path: str = "") -> set[str]:
        return {row[0] for row in self.sql("SELECT title FROM posts", path)}

    def running(self) -> str:
        """Return the app's running containers with restart policy, and all that nginx and its folders hold."""
        names = " ".join(self.server.running(self.app))
        policies = self.server.root(f"docker inspect -f '{{{{.Name}}}} {{{{.HostConfig.RestartPolicy.Name}}}}' {names}")
        return policies + self.server.root("find /srv/tidegate/edge -type f -exec sha256sum {} + | sort")


@dataclass
class Users:
    """Readers of one post and writers of others; each answer is kept."""

    app: App
    post: int
    samples: list[Sample] = field(default_factory=list)

    def __enter__(self) -> Users:
        server = self.app.servers[0].known
        self.load = Load(("127.0.0.1", server.http_port), self.app.domain, f"/posts/{self.post}", interval=1 / 60, lanes=4, timeout=10.0,
                         post=self._post, on_answer=self.samples.append)  # fmt: skip
        self.load.start()
        wait_until(lambda: len(self.samples) > 60, "the users do not get going")
        return self

    def __exit__(self, *_: object) -> None:
        enough = len(self.samples) + 120
        wait_until(lambda: len(self.samples) > enough, "the users get no answers any more")
        self.report = self.load.stop()

    def _post(self, number: int) -> tuple[str, bytes]:
        return "/posts", json.dumps({"title": f"{id(self)} {number}", "body": "high water"}).encode()

    def titles(self) -> list[tuple[float, str]]:
        """Return what the readers saw, in the order in which they asked."""
        seen = [(one.at, json.loads(one.body)["title"]) for one in self.samples if one.post < 0 and one.status == 200]
        return sorted(seen)

    def acknowledged(self) -> set[str]:
        return {json.loads(one.body)["title"] for one in self.samples if one.post >= 0 and one.status == 201}

    def refused(self) -> list[Sample]:
        return [one for one in self.samples if one.status != (200 if one.post < 0 else 201)]


@pytest.fixture
def agent(blog: App) -> Iterator[Agent]:
    agent = Agent(blog.servers[0], blog.name)
    agent.install()
    yield agent
    agent.server.root(f"cd /srv/tidegate/{blog.name}; rm -rf backup.json backups; rm -f {agent.file}.before-*")


@pytest.fixture
def backup(agent: Agent) -> str:
    """A backup of three posts, of which the first is garbled afterwards and the others are deleted."""
    agent.sql("DELETE FROM posts")
    agent.sql("INSERT INTO posts (title, body, created) VALUES ('true', 'b', 'c'), ('second', 'b', 'c'), ('third', 'b', 'c')")
    id: str = agent("run")["id"]
    agent.sql("UPDATE posts SET title = 'garbled' WHERE title = 'true'")
    agent.sql("DELETE FROM posts WHERE title IN ('second', 'third')")
    return id


def test_users_see_what_was_before_or_after_or_a_503_that_says_when_to_try_again(
    blog: App, agent: Agent, backup: str, record_property: Record
) -> None:
    post = agent.sql("SELECT min(id) FROM posts")[0][0]
    before = agent.running()
    with Users(blog, post) as users:
        done = agent("restore", backup)
    titles = [title for _, title in users.titles()]
    assert set(titles) == {"garbled", "true"}
    assert titles == sorted(titles), "the old data was served after the new"
    refused = users.refused()
    assert refused
    assert {one.status for one in refused} == {503}, users.report.examples
    assert all(b"Retry-After: 5" in one.head for one in refused)
    kept, safety = done["sources"]["posts"]["kept"], done["safety"]
    assert users.acknowledged() <= agent.titles() | agent.titles(kept)
    assert {"true", "second", "third"} <= agent.titles()
    assert done["sources"]["posts"]["rows"] >= 3
    assert agent.running() == before
    assert safety in agent.server.root(f"ls /srv/tidegate/{blog.name}/backups")
    window = max(one.at for one in refused) - min(one.at for one in refused)
    record_property("paused", {"agent_s": done["paused_seconds"], "seen_by_users_s": round(window, 3), "refused": len(refused)})
    print(
        f"paused {done['paused_seconds']} s, users saw 503 for {window:.2f} s ({len(refused)} of {len(users.samples)} requests)"
    )
    assert blog.deploy().document["result"] == "unchanged"


@pytest.mark.parametrize(
    ("phase", "number"),
    [
        ("swapping", "SIGKILL"),
        ("paused", "SIGTERM"),
        *(pytest.param(phase, "SIGKILL", marks=pytest.mark.slow) for phase in ("beside", "paused", "resuming", "done")),
        *(pytest.param(phase, "SIGTERM", marks=pytest.mark.slow) for phase in ("beside", "swapping", "resuming", "done")),
    ],
)
def test_a_restore_that_is_killed_or_stopped_anywhere_can_be_undone(
    blog: App, agent: Agent, backup: str, phase: str, number: str
) -> None:
    before = agent.running()
    code = agent.killed(phase, number, backup)
    done = agent("restore-undo")
    if number == "SIGKILL":
        assert code == -9
        assert done["result"] == ("done" if phase == "done" else "undone")
    else:
        assert done["result"] == "nothing to undo"
    restored = done["result"] == "done" or code == 0
    assert restored == (phase == "done")
    assert agent.titles() == ({"true", "second", "third"} if restored else {"garbled"})
    assert agent.running() == before
    wait_until(lambda: blog.get("/health")[0][0] == 200, "the app does not answer")
    left = agent.server.root(f"ls {agent.file}* /srv/tidegate/{blog.name} /srv/tidegate/edge/staged")
    assert "restore" not in left
    assert "tidegate-" not in left


def test_the_next_migration_is_rehearsed_on_the_backup_with_the_apps_image_and_user(blog: App, agent: Agent, backup: str) -> None:
    releases = f"/srv/tidegate/{blog.name}/releases"
    image = json.loads(agent.server.root(f"cat $(ls -t {releases}/*.json | head -1)"))["image"]
    script = "import sqlite3; d = sqlite3.connect('/app/data/blog.db'); d.execute('ALTER TABLE posts ADD mood'); d.execute('DELETE FROM posts'); d.commit()"
    request = {
        "image": image, "command": ["python3", "-c", script], "timeout": 30.0, "environment": {},
        "volumes": {f"{blog.name}_blog-data": "/app/data"},
    }  # fmt: skip
    command = agent.command("rehearse", "--tether")
    said = agent.server.root(f"{command} < <(cat <<'END'\n{json.dumps(request)}\nEND\nexec sleep 60 2>/dev/null)")
    done = json.loads(said.splitlines()[-1])["value"]
    assert (done["exit_code"], done["schema_changed"], done["backup"]) == (0, True, backup), done["said"]
    assert (done["counts_before"]["posts posts"], done["counts_after"]["posts posts"]) == (3, 0)
    assert agent.titles() == {"garbled"}

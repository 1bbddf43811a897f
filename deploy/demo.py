"""`python -m deploy.demo`: servers start, versions are swapped under load, one fails, one is rolled back; nobody notices.

It types the commands that a user types, in a project folder of its own (.tidegate/demo), and judges them by what the
users of the app see. Exit code 0 only when nothing failed that should not have.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from deploy import demo_project
from deploy.demo_project import REPOSITORY
from deploy.demo_story import ACTS, FIRST, Act, Row
from deploy.demo_users import Crowd, Users
from deploy.demo_view import View
from deploy.sandbox import Sandbox
from ops import local_engine
from ops.bases import ensure_base
from ops.console import Console
from ops.errors import Failed, TidegateError
from ops.interrupts import interrupt_once
from ops.stand_ins import DEBIAN, NGINX

ROOT = REPOSITORY / ".tidegate" / "demo"
NAME = "demo"
RESULT = ROOT / "result.json"
CLEAN_UP = "nox -s demo -- --down     (or: python -m deploy.demo --down)"
CALM = 2.0  # seconds of undisturbed users before and after every command


@dataclass
class Demo:
    """One run."""

    hosts: int
    rate: float
    view: View
    rows: list[Row] = field(default_factory=list)
    crowd: Crowd = field(default_factory=lambda: Crowd(()))
    versions: list[tuple[str, ...]] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def prepare(self) -> None:
        """Make the engine ready, get all images side by side, and start from nothing."""
        self.view.title("this machine: engine and images")
        say = self.view.line
        local_engine.ensure(say)
        if ROOT.exists():
            Sandbox(ROOT).down(say)
        RESULT.unlink(missing_ok=True)
        demo_project.renew(ROOT, NAME)
        ensure_base(DEBIAN, say)
        with ThreadPoolExecutor(3) as pool:
            jobs = [pool.submit(Sandbox(ROOT).ensure_image, say), pool.submit(ensure_base, NGINX, say), pool.submit(_build)]
        for job in jobs:
            job.result()

    def play(self) -> None:
        """Type the commands, with users at every server from the first deploy on."""
        up = Act(
            f"{self.hosts} servers with sshd and an engine each, made ready", ("sandbox.up", f"--hosts={self.hosts}"), serves=0
        )
        self._act(up)
        self._act(FIRST)
        servers, domain = Sandbox(ROOT).status(), Sandbox(ROOT).domain
        self.crowd = Crowd([Users(one, domain, self.rate / len(servers)) for one in servers])
        self.view.title(f"users arrive: {self.rate:.0f} requests a second, reading and writing, on kept and fresh connections")
        with ExitStack() as stack:
            stack.enter_context(self.view.watching(self.crowd))
            stack.callback(self.crowd.stop)
            self.crowd.start()
            self.crowd.go_on(CALM)
            self.view.saw(self.crowd.since([0] * len(self.crowd.users)))
            self.versions.append(self._serving())
            for act in ACTS:
                self._act(act)

    def _act(self, act: Act) -> None:
        self.view.title(act.title)
        if act.change:
            act.change.make(ROOT)
            self.view.line(f"· {act.change.file}: {act.change.new}")
        self.view.typed(command := f"inv {' '.join(act.words).replace('=', ' ')}")
        mark, began = self.crowd.mark(), time.monotonic()
        code = self._run(*act.words)
        seconds = time.monotonic() - began
        self.crowd.go_on(CALM)
        seen, serving = self.crowd.since(mark), self._serving()
        if self.crowd.users:
            self.view.saw(seen)
        well = code == act.code and not seen.failures and self._right(act, serving)
        self.rows.append(
            Row(act.title, command, code, round(seconds, 2), well, seen.requests, seen.failures, seen.p50, seen.p99, serving)
        )
        if code and not act.code:
            raise Failed(f"`{command}` ended with exit code {code}", why="its output is above", fix=f"look around in {ROOT}")

    def _run(self, *words: str) -> int:
        with demo_project.start(ROOT, *words) as process:
            try:
                for line in process.stdout or ():
                    self.view.line(line.rstrip("\n"))
            except KeyboardInterrupt:
                process.send_signal(signal.SIGINT)  # it undoes what it began; that is to be seen, too
                for line in process.stdout or ():
                    self.view.line(line.rstrip("\n"))
                raise
        return process.returncode

    def _serving(self) -> tuple[str, ...]:
        return tuple(one.serving for one in self.crowd.users)

    def _right(self, act: Act, serving: tuple[str, ...]) -> bool:
        """Say whether the version that is meant to answer does, on every server; a new one is noted."""
        if not self.crowd.users:
            return True
        if act.serves > len(self.versions):
            self.versions.append(serving)
            return len(set(serving)) == 1 and serving not in self.versions[:-1]
        return serving == self.versions[act.serves - 1]

    def document(self, lost: set[str]) -> dict[str, Any]:
        """Return all that is to be known afterwards; `ok` is the verdict."""
        users = {one.server.name: {"url": address(one), **one.now().to_dict(), "acknowledged_posts": len(one.acknowledged)}
                 for one in self.crowd.users}  # fmt: skip
        done = len(self.rows) == len(ACTS) + 2 and all(row.well for row in self.rows)
        unharmed = bool(users) and not lost and not any(one.now().failures for one in self.crowd.users)
        return {"ok": done and unharmed, "seconds": round(time.monotonic() - self.began, 1), "commands": [asdict(row) for row in self.rows],
                "users": users, "lost_posts": sorted(lost)}  # fmt: skip


def address(users: Users) -> str:
    """Return what to open in a browser: names under localhost lead to this machine, and nginx knows the app by its name."""
    return f"http://{users.domain}:{users.server.http_port}"


def _build() -> None:
    """Build the first version beside the servers' images, so that its deploy finds it built."""
    command = demo_project.inv("docker.build", "--no-verbose")
    done = subprocess.run(
        command, cwd=ROOT, env=demo_project.environment(ROOT), capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode:
        raise Failed("the example does not build", why=done.stdout + done.stderr, fix="put that right, then run this again")


def down(view: View) -> int:
    """Remove all that the demo left: servers, images of its app, its folder."""
    if ROOT.exists():
        Sandbox(ROOT).down(view.line)
        shutil.rmtree(ROOT)
    if local_engine.answers():
        view.line(f"✓ removed, with {demo_project.remove_images(NAME)} images of the app")
    return 0


def run(options: argparse.Namespace, view: View) -> int:
    """Play it, tell about it, write it down, clean up or say how."""
    demo = Demo(options.hosts, options.rate, view)
    stays = options.keep or not os.environ.get("CI")
    code = 1
    try:
        code = _played(demo, options.json or RESULT)
    except KeyboardInterrupt:
        stays = False
        view.line("✗ interrupted; everything is removed")
    finally:
        if stays:
            _tell_how_to_go_on(demo, view)
        else:
            _remove_all_but_result(view)
    return code


def _played(demo: Demo, file: Path) -> int:
    code, lost = 0, set[str]()
    try:
        demo.prepare()
        demo.play()
        lost = {title for one in demo.crowd.users for title in one.lost()}
    except TidegateError as error:
        code = error.exit_code
        demo.view.line(f"✗ {error}")
    document = demo.document(lost)
    demo.view.tell(demo.rows, document)
    for path in {RESULT, file}:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, indent=1) + "\n")
    return code or int(not document["ok"])


def _remove_all_but_result(view: View) -> None:
    result = RESULT.read_text() if RESULT.exists() else ""
    down(view)
    if result:
        ROOT.mkdir(mode=0o700, parents=True)
        RESULT.write_text(result)


def _tell_how_to_go_on(demo: Demo, view: View) -> None:
    view.title("look around")
    for one in demo.crowd.users:
        view.line(f"  open      {address(one)}")
    view.line(f"  commands  cd {ROOT} && {Path(sys.executable).with_name('inv')} -r {REPOSITORY} deploy.status")
    view.line(f"  details   {RESULT}")
    view.line(f"  clean up  {CLEAN_UP}")


def main(arguments: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deploy.demo", description="Show the main job on servers of its own.")
    parser.add_argument("--hosts", type=int, default=2, help="how many servers (default: 2)")
    parser.add_argument("--rate", type=float, default=160.0, help="requests a second in all (default: 160)")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help=f"also write the result there (always: {RESULT.relative_to(REPOSITORY)})"
    )
    parser.add_argument("--keep", action="store_true", help="leave the servers up, also where CI is set")
    parser.add_argument("--down", action="store_true", help="remove what an earlier demo left, and do nothing else")
    options = parser.parse_args(arguments)
    view = View(Console())
    interrupt_once()
    return down(view) if options.down else run(options, view)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

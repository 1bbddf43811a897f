"""The program on one server: put there, kept up to date, and asked to do something."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from backup import package
from backup.agent.model import HOME, Settings
from ops.config import Environment
from ops.errors import Failed, Locked, NeedsPerson, Partial, Refused, TidegateError
from ops.link import AgentError, Link
from ops.shell import Command, sh

PROGRAM = "/usr/local/lib/tidegate/backup.pyz"
PYTHON = "/usr/bin/python3"
OTHER_PROGRAM = 9  # as backup.agent.cli has it, which is not imported here for its weight
_ABSENT = 2  # python3 found no such file, or an older program does not know an option
_KINDS: Mapping[int, type[TidegateError]] = {3: Refused, 4: Locked, 5: NeedsPerson, 6: Partial}
_NO_SUDO = re.compile(r"^sudo: (?!unable to resolve host)|not in the sudoers file|is not allowed to (execute|run)", re.MULTILINE)

Event = dict[str, Any]


def unheard(_event: Event) -> None:
    """Hear of nothing."""


class Client:
    """The program on the server of a link, for one environment's app; `settings` are what it is to find there."""

    def __init__(self, link: Link, env: Environment, settings: Settings | None = None) -> None:
        self.host = link.host
        self.name = link.name
        self._link = link
        self._env = env
        self._settings = settings
        self._ready = False

    def ensure(self) -> None:
        """Put the program there, and the settings if we have some, unless they are there. Raises TidegateError."""
        contents = {"program": (PROGRAM, 0o755, package.program())}
        if self._settings:
            path = f"{HOME}/{self._env.app.name}/backup.json"
            contents["settings"] = (path, 0o600, self._settings.to_json().encode())
        missing = self._install({name: self._described(*one) for name, one in contents.items()})
        if missing:
            again = {name: self._described(*contents[name], whole=True) for name in missing}
            if left := self._install(again):
                raise Failed(f"the server did not take {', '.join(left)} of backups", where=self.name)
        self._ready = True

    def _described(self, path: str, mode: int, content: bytes, *, whole: bool = False) -> dict[str, Any]:
        known = {"path": path, "mode": mode, "digest": hashlib.sha256(content).hexdigest(), "environment": self._env.name}
        return known | ({"content": base64.b64encode(content).decode()} if whole else {})

    def _install(self, request: Mapping[str, Any]) -> list[str]:
        answers: list[Event] = []
        code, said = self._run(["-S", "-c", package.installer()], json.dumps(request), answers.append)
        for other in (event["other"] for event in answers if "other" in event):
            path = f"{HOME}/{self._env.app.name}/backup.json"
            raise Refused(f"the backups of {self._env.app.name} there are those of environment {other}", where=self.name, why=path,
                          fix=f"give this one its own app.name, or, if {other} is no more, remove that file")  # fmt: skip
        found = [event["missing"] for event in answers if "missing" in event]
        if code or not found:
            raise self._broken(code, said)
        missing: list[str] = found[-1]
        return missing

    def call(self, command: str, *arguments: str, request: Mapping[str, Any] | None = None,
             on_event: Callable[[Event], None] = unheard) -> Any:  # fmt: skip
        """Carry out a command and return its result; secrets travel in `request`. Raises what its exit code stands for."""
        if self._settings and not self._ready:
            self.ensure()
        code, said, last = self._ask(command, arguments, request or {}, on_event)
        if code in (OTHER_PROGRAM, _ABSENT) and "event" not in last:
            self.ensure()
            code, said, last = self._ask(command, arguments, request or {}, on_event)
        if code == 0 and last.get("event") == "result":
            return last["value"]
        raise self._error(last, code) if last.get("event") == "error" else self._broken(code, said)

    def peek(self, command: str) -> Any:
        """Carry out a command that only looks, without installing anything; None where it cannot be, for whatever reason."""
        try:
            code, _, last = self._ask(command, (), {}, unheard)
        except TidegateError:  # a rollback must not fail for want of sudo; a lost connection is told by what comes next
            return None
        return last["value"] if code == 0 and last.get("event") == "result" else None

    def _ask(
        self, command: str, arguments: tuple[str, ...], request: Mapping[str, Any], on_event: Callable[[Event], None]
    ) -> tuple[int, str, Event]:
        last: Event = {}

        def hear(event: Event) -> None:
            if event.get("event") in ("result", "error"):
                last.update(event)
            else:
                on_event(event)

        argv = [PROGRAM, *self._words(command), "--json", "--tether", *arguments]
        code, said = self._run(argv, json.dumps(request), hear)
        return code, said, last

    def _words(self, command: str) -> list[str]:
        return [command, "--app", self._env.app.name, "--home", HOME, "--expect", package.digest()]

    def sender(self, id: str, file: str, offset: int) -> Command:
        """Return the command line that writes a file of a backup to standard output, from an offset on."""
        sudo = () if self._link.hello()["user"] == "root" else ("sudo", "-n", "--")
        return sh(*sudo, PYTHON, "-I", PROGRAM, *self._words("send"), id, file, offset)

    def _run(self, argv: list[str], stdin: str, on_event: Callable[[Event], None]) -> tuple[int, str]:
        try:
            return self._link.program([PYTHON, "-I", *argv], stdin=stdin, on_event=on_event)
        except AgentError as error:
            if error.kind == "FileNotFoundError":  # the agent is not root and has no sudo, or there is no such python3
                raise self._no_root(error.what) from None
            raise

    def _error(self, said: Mapping[str, Any], code: int) -> TidegateError:
        kind = _KINDS.get(code, Failed)
        return kind(said["what"], where=self.name, why=said["why"], fix=self._for_environment(said["fix"]))

    def _for_environment(self, fix: str) -> str:
        """Add the environment to the commands that the server tells to run next."""
        return re.sub(r"\binv [a-z.-]++(?! -e)", rf"\g<0> -e {self._env.name}", fix)

    def _broken(self, code: int, said: str) -> TidegateError:
        if code == 1 and _NO_SUDO.search(said):
            return self._no_root(said)
        return Failed(f"the backup program ended with exit code {code}", where=self.name, why=said or "it said nothing")

    def _no_root(self, why: str) -> Refused:
        user = self._link.hello()["user"]
        allow = f"as root on the server: echo '{user} ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/tidegate"
        return Refused("backups run as root, and we cannot become root there", where=self.name, why=why,
                       fix=f"inv server.bootstrap -e {self._env.name}, or {allow}, or log in as root")  # fmt: skip

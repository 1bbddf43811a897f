"""Configuration judged by the very programs that will read it, before any of it is placed."""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from monitoring.certificates import issue
from monitoring.files import MOUNT, File
from monitoring.images import Lock
from ops.names import LABEL

if TYPE_CHECKING:
    from docker import APIClient

LABELS = {f"{LABEL}.monitoring": "check"}
_COMPOSE = Path(__file__).with_name("compose.yaml")
_SECONDS = 60  # for one program
_LEFT_OVER = 600  # seconds: a container older than that is of a run that was killed


@dataclass(frozen=True)
class Tool:
    """A program that judges a service's files, beginning with `main`."""

    service: str
    main: str
    name: str
    command: tuple[str, ...]

    @property
    def folder(self) -> str:
        """Return the folder that the service mounts."""
        return self.main.partition("/")[0]


TOOLS = (
    Tool("prometheus", "prometheus/prometheus.yml", "promtool check config", ("/bin/promtool", "check", "config", "--lint-fatal")),
    Tool("alertmanager", "alertmanager/alertmanager.yml", "amtool check-config", ("/bin/amtool", "check-config")),
    Tool("loki", "loki/loki.yaml", "loki -verify-config", ("/usr/bin/loki", "-verify-config", "-config.file")),
    Tool("blackbox", "blackbox/blackbox.yml", "blackbox_exporter --config.check",
         ("/bin/blackbox_exporter", "--config.check", "--config.file")),
    Tool("gate", "gate/nginx.conf", "nginx -t", ("nginx", "-t", "-q", "-c")),
    Tool("alloy", "collector/config.alloy", "alloy validate", ("/bin/alloy", "validate")),
    Tool("promtail", "collector/promtail.yaml", "promtail -check-syntax", ("/usr/bin/promtail", "-check-syntax", "-config.file")),
)  # fmt: skip
_TALK = re.compile(
    r"Checking .*|.*SUCCESS.*|FAILED:|Found:|- .*|.*\blevel=info\b.*|Valid config file!.*"
    r"|amtool: error: failed to validate.*|nginx: configuration file .* test failed|",
    re.IGNORECASE,
)  # what they say besides
_STAMP = re.compile(r"^[\d/]+ [\d:]+ (\[\w+\]) \d+#\d+: ")


@dataclass(frozen=True)
class Problem:
    """What a program says of a service's files; `ok` is None where it was not asked, and `said` is why."""

    service: str
    tool: str
    ok: bool | None
    said: str

    @property
    def kind(self) -> str:
        """Return it in a word."""
        return {True: "fine", False: "WRONG", None: "skipped"}[self.ok]


def check_files(engine: APIClient, files: Sequence[File], lock: Lock) -> list[Problem]:
    """Have each service's own program judge its files, in a throwaway container of the image that will run them.

    It has no network and no capability, and secrets do not go there: they and certificates are made up.
    """
    _sweep(engine)
    return [Problem(tool.service, tool.name, *_judged(engine, tool, files, lock)) for tool in TOOLS]


def _judged(engine: APIClient, tool: Tool, files: Sequence[File], lock: Lock) -> tuple[bool | None, str]:
    from requests.exceptions import RequestException

    from ops.engine import EngineError, NotFound

    mine = [file for file in files if file.service == tool.folder]
    if not any(file.path == tool.main for file in mine):
        return None, f"there is no {tool.main}: left out here"
    image = lock[tool.service].name
    try:
        code, text = _run(engine, tool, image, _archive(_harmless(mine)))
    except NotFound:
        return None, f"{image} is not there: inv monitoring.up brings it"
    except (EngineError, RequestException) as error:
        return False, f"it could not be run: {error}"
    said = _said(text, tool)
    return not code and "WARNING" not in said, said or (f"exit code {code}" if code else "")


def _run(engine: APIClient, tool: Tool, image: str, archive: bytes) -> tuple[int, str]:
    """Run a program on files in the container's own layer: an engine puts none into a tmpfs or a read-only container."""
    from docker.types import LogConfig

    host = engine.create_host_config(
        network_mode="none", cap_drop=["ALL"], security_opt=["no-new-privileges:true"], log_config=LogConfig(type="json-file")
    )
    container = engine.create_container(
        image, entrypoint=[tool.command[0]], command=[*tool.command[1:], f"{MOUNT}/{tool.main.partition('/')[2]}"],
        user=_users()[tool.service], labels=LABELS, host_config=host,
    )["Id"]  # fmt: skip
    try:
        engine.put_archive(container, "/", archive)
        engine.start(container)
        code = engine.wait(container, timeout=_SECONDS)["StatusCode"]
        return code, engine.logs(container).decode("utf-8", "replace")
    finally:
        engine.remove_container(container, force=True, v=True)  # with the volumes that an image asks for


def _sweep(engine: APIClient) -> None:
    """Remove what killed runs left; a younger container is of somebody who checks right now."""
    from ops.engine import NotFound

    left = engine.containers(all=True, filters={"label": [f"{name}={value}" for name, value in LABELS.items()]})
    now = datetime.fromisoformat(engine.info()["SystemTime"]).timestamp() if left else 0.0  # its clock, not ours
    for one in left:
        if one["Created"] < now - _LEFT_OVER:
            try:
                engine.remove_container(one["Id"], force=True, v=True)
            except NotFound:
                pass  # another run sweeps too


@cache
def _users() -> Mapping[str, str]:
    """Return as whom each service runs."""
    return {name: service.get("user", "") for name, service in yaml.safe_load(_COMPOSE.read_text())["services"].items()}


def _harmless(files: Sequence[File]) -> list[File]:
    """Return a service's files without a secret in them; a certificate that stays on its server is not known here at all."""
    found = [replace(file, content="-") if "/secrets/" in file.path else file for file in files if "/tls/" not in file.path]
    if any(f"{MOUNT}/tls/" in file.content for file in found):
        made = _identity()
        found += [File(f"{files[0].service}/tls/{name}.pem", text) for name, text in made.items()]
    return found


@cache
def _identity() -> Mapping[str, str]:
    made = issue(["127.0.0.1"], datetime.now(UTC))["127.0.0.1"]
    return {"ca": made.ca, "cert": made.certificate, "key": made.key}


def _archive(files: Sequence[File]) -> bytes:
    """Return the files as they will be mounted, owners and modes too: what the service may not read is found as well."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for file in files:
            content = file.content.encode()
            known = tarfile.TarInfo(f"{MOUNT[1:]}/{file.path.partition('/')[2]}")
            known.size, known.mode, known.uid, known.gid = len(content), file.mode, file.owner, file.owner
            archive.addfile(known, io.BytesIO(content))
    return buffer.getvalue()


def _said(text: str, tool: Tool) -> str:
    """Return what a program has to say, with files as they are called here, less its talk."""
    lines = [_STAMP.sub(r"\1 ", _plain(line.strip())) for line in text.splitlines()]
    kept = "\n".join(line for line in lines if not _TALK.fullmatch(line)).replace(MOUNT, tool.folder)
    return kept if not kept or f"{tool.folder}/" in kept else f"{tool.main}: {kept}"


def _plain(line: str) -> str:
    """Return the error in a line of a log, and a file's name before its failure."""
    if quoted := re.search(r'level=\w+ .*\berr=("(?:[^"\\]|\\.)*")', line):
        return str(json.loads(quoted[1]))
    return re.sub(r"^Checking '(.*)'\s+FAILED: ", r"\1: ", line.removeprefix("FAILED: "))

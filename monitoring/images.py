"""The images of the stack: one lock file says which, and servers get them from a registry or from this machine."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ops import local_engine
from ops.bases import ensure_base
from ops.errors import ConfigError, Failed, Refused
from ops.stand_ins import STAND_IN
from ops.this_machine import local_client

if TYPE_CHECKING:
    from docker import APIClient

LOCK = Path(__file__).with_name("images.toml")
NAMES = (
    "prometheus", "alertmanager", "grafana", "loki", "alloy", "promtail",
    "node", "cadvisor", "blackbox", "edge-exporter", "postgres-exporter", "gate",
)  # fmt: skip
_COMPOSE = "com.docker.compose"
_MEGABYTE = 1_000_000
_SAID_EVERY = 50 * _MEGABYTE
_PATIENCE = 600  # seconds until the engine begins to hand out a large image
_TABLE = {"image": r"[a-z0-9][a-z0-9._/:-]*", "tag": r"\w[\w.-]{0,127}", "digest": r"(sha256:[0-9a-f]{64})?"}

Say = Callable[[str], None]


@dataclass(frozen=True)
class Image:
    """An image of the lock file; without a digest it is whatever its tag names."""

    repository: str
    tag: str
    digest: str = ""

    @property
    def name(self) -> str:
        """Return what it is called on a server's engine, and in the Compose file."""
        return f"{self.repository}:{self.tag}"

    @property
    def reference(self) -> str:
        """Return exactly which it is."""
        return f"{self.name}@{self.digest}" if self.digest else self.name


@dataclass(frozen=True)
class Running:
    """The image of a service's container: as it was named, which it is, and what registries call it."""

    name: str
    id: str
    digests: tuple[str, ...] = ()
    stand_in: bool = False


Lock = Mapping[str, Image]


def load(file: Path = LOCK) -> Lock:
    """Return the images that a lock file names. Raises ConfigError."""
    try:
        found = tomllib.loads(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(
            "the lock file of the images cannot be read", where=str(file), why=str(error), fix="git checkout it"
        ) from None
    problems = list(_problems(found))
    if problems:
        fix = f"it needs, for each of {', '.join(NAMES)}: image, tag, digest"
        raise ConfigError("the lock file of the images is wrong", where=str(file), why="; ".join(problems), fix=fix)
    return {name: Image(found[name]["image"], found[name]["tag"], found[name]["digest"]) for name in NAMES}


def image(name: str, lock: Lock | None = None) -> str:
    """Return the reference of a service's image, with its digest where one is known."""
    return (lock or load())[name].reference


def parse(reference: str) -> Image:
    """Return what a reference says: `repository:tag`, or that with `@sha256:…`."""
    name, _, digest = reference.partition("@")
    repository, _, tag = name.rpartition(":")
    return Image(repository, tag, digest)


def write(lock: Lock, file: Path = LOCK) -> None:
    """Put images, tags and digests into a lock file, all or nothing; its comments stay."""
    text = file.read_text("utf-8")
    for name, one in lock.items():
        head, begin, rest = text.partition(f"[{name}]\n")
        table, end, tail = rest.partition("\n[")
        for key, value in (("image", one.repository), ("tag", one.tag), ("digest", one.digest)):
            table = re.sub(rf'^{key} = "[^"]*"', f'{key} = "{value}"', table, flags=re.MULTILINE)
        text = head + begin + table + end + tail
    draft = file.with_name(f"{file.name}.new")
    draft.write_text(text, "utf-8")
    draft.replace(file)


def refreshed(lock: Lock, ask: Callable[[str], str]) -> Lock:
    """Return the lock with the digests that the registries have for its tags. Raises Refused when one does not answer."""
    return {name: replace(one, digest=ask(one.name)) for name, one in lock.items()}


def refresh(ask: Callable[[str], str], file: Path = LOCK) -> list[str]:
    """Write the digests that the registries have for a lock file's tags into it; returns the services whose image that changes.

    Raises Refused, and writes nothing, when one registry does not answer.
    """
    known = load(file)
    new = refreshed(known, ask)
    changed = [name for name in known if new[name] != known[name]]
    if changed:
        write(new, file)
    return changed


def registry_digest(name: str) -> str:
    """Return the digest that a registry has for `repository:tag`, asked by this machine's engine. Raises Refused."""
    from requests.exceptions import RequestException

    from ops.engine import EngineError

    try:
        return str(local_client().api.inspect_distribution(name)["Descriptor"]["digest"])
    except (EngineError, RequestException) as error:
        why = getattr(error, "explanation", None) or str(error)
        fix = "check the tag, and that this machine reaches the registry; nothing was written"
        raise Refused(f"the registry does not tell what {name} is", why=why, fix=fix) from None


def bring(engine: APIClient, reference: str, say: Say, where: str = "") -> str:
    """Have an image on a server: there already, pulled there, else sent from here; returns its name there.

    Raises Failed, or Refused when this machine cannot have it either.
    """
    wanted = parse(reference)
    known = _inspect(engine, wanted.name)
    if known and is_wanted(wanted, _digests(known)):
        return wanted.name
    say(f"pulling {wanted.name}")
    if problem := _pull(engine, wanted):
        if known:
            say(f"the {wanted.name} there is kept, though it is not {wanted.digest}: {problem}")
        else:
            say(f"it cannot be pulled there: {problem}")
            _send(engine, wanted, say, where)
    if not _inspect(engine, wanted.name):
        raise Failed(f"{wanted.name} did not arrive", where=where, fix="run this again")
    return wanted.name


def images_running(engine: APIClient, project: str) -> dict[str, Running]:
    """Return the image of each container of a Compose project, started or not, by service."""
    found: dict[str, Running] = {}
    for one in engine.containers(all=True, filters={"label": f"{_COMPOSE}.project={project}"}):
        known = engine.inspect_container(one["Id"])
        image = _inspect(engine, known["Image"])
        service = known["Config"]["Labels"][f"{_COMPOSE}.service"]
        found[service] = Running(known["Config"]["Image"], known["Image"], _digests(image), stand_in=_is_stand_in(image))
    return found


def is_wanted(wanted: Image, digests: Sequence[str]) -> bool:
    """Say whether an image of the wanted name is the wanted one, or cannot be told from it."""
    return not wanted.digest or not digests or wanted.digest in digests


def _digests(known: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what registries call an image; nothing of a stand-in, nor of one that was sent to an older engine."""
    if _is_stand_in(known):
        return ()
    return tuple(one.partition("@")[2] for one in known.get("RepoDigests") or ())


def _is_stand_in(known: Mapping[str, Any]) -> bool:
    return STAND_IN in (known.get("Config", {}).get("Labels") or {})


def _problems(found: Mapping[str, Any]) -> Iterator[str]:
    for name in NAMES:
        table = found.get(name)
        if not isinstance(table, dict):
            yield f"[{name}] is missing"
            continue
        for key, pattern in _TABLE.items():
            value = table.get(key)
            if not isinstance(value, str) or not re.fullmatch(pattern, value):
                yield f"[{name}] {key} = {value!r}"
    yield from (f"[{name}] is nothing we know" for name in found if name not in NAMES)


def _inspect(engine: APIClient, name: str) -> Mapping[str, Any]:
    from ops.engine import NotFound

    try:
        known: Mapping[str, Any] = engine.inspect_image(name)
    except NotFound:
        return {}
    return known


def _pull(engine: APIClient, wanted: Image) -> str:
    """Have the server pull it, by digest where one is known, under its tag; returns why that failed, or nothing."""
    from requests.exceptions import RequestException

    from ops.engine import EngineError

    try:
        for line in engine.pull(wanted.repository, wanted.digest or wanted.tag, stream=True, decode=True):
            if "error" in line:
                return str(line["error"])
        if wanted.digest:
            engine.tag(f"{wanted.repository}@{wanted.digest}", wanted.repository, wanted.tag)
    except (EngineError, RequestException) as error:
        return str(getattr(error, "explanation", None) or error)
    return ""


def _send(engine: APIClient, wanted: Image, say: Say, where: str) -> None:
    local_engine.ensure(say)
    here = local_client(timeout=_PATIENCE).api
    ensure_base(wanted.reference, say)
    known = here.inspect_image(wanted.name)
    if known["Architecture"] != (theirs := engine.version()["Arch"]):
        raise Failed(f"{wanted.name} is here for {known['Architecture']} only and not for {theirs}", where=where,
                     fix="let the server reach the registry")  # fmt: skip
    say(f"sending {wanted.name}, {known['Size'] // _MEGABYTE} MB")
    for line in engine.load_image(_counted(here.get_image(wanted.name), say)):
        if "error" in line:
            raise Failed(f"the engine does not take {wanted.name}", where=where, why=str(line["error"]), fix="run this again")


def _counted(chunks: Iterator[bytes], say: Say) -> Iterator[bytes]:
    """Pass chunks on, saying now and then how many there were."""
    sent = 0
    for chunk in chunks:
        yield chunk
        sent += len(chunk)
        if sent // _SAID_EVERY > (sent - len(chunk)) // _SAID_EVERY:
            say(f"  {sent // _MEGABYTE} MB sent")

"""The images that a Dockerfile stands on: which they are, how old, and whether their registries have newer ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.images.dockerfile import bases
from ops.errors import ConfigError
from ops.stand_ins import STAND_IN

if TYPE_CHECKING:
    from docker import APIClient

OLD = timedelta(days=30)
PATIENCE = 20  # seconds until a registry counts as silent


@dataclass(frozen=True)
class Base:
    """A base image: as it is named, as it is here (`digests` are what registries call it), as its registry has it now."""

    name: str
    line: int
    present: bool = False
    stand_in: bool = False
    created: datetime | None = None
    digests: tuple[str, ...] = ()
    registry: str = ""
    silence: str = ""

    @property
    def pinned(self) -> str:
        """Return the digest that the Dockerfile demands."""
        return self.name.partition("@")[2]

    @property
    def drift(self) -> bool | None:
        """Tell whether the tag names another image by now; None where that cannot be told."""
        mine = (self.pinned,) if self.pinned else self.digests
        return self.registry not in mine if self.registry and mine else None

    def age(self, now: datetime) -> timedelta | None:
        """Return how long ago it was made, None where that is not known."""
        return now - self.created if self.created else None

    def old(self, now: datetime) -> bool:
        """Tell whether it is so old that security updates are likely to be missing."""
        return (self.age(now) or timedelta()) > OLD

    def remarks(self, now: datetime) -> list[str]:
        """Return what a person should know or do."""
        said = []
        if self.drift:
            said.append(f"the tag now names {self.registry}: " + ("pin that" if self.pinned else "docker pull, and build again"))
        if self.silence:
            said.append(f"whether the tag has moved is not known: {self.silence}")
        if self.old(now):
            said.append(f"older than {OLD.days} days: it lacks what was mended since; docker pull, and build again")
        if self.stand_in:
            said.append("a stand-in made here of Debian's packages: no registry has it")
        if not self.present:
            said.append("not here: inv docker.bases --get, or the next build gets it")
        return said

    def document(self, now: datetime) -> dict[str, Any]:
        """Return it for scripts."""
        age = self.age(now)
        more = {"created": self.created and self.created.isoformat(), "age_days": age and age.days, "drift": self.drift,
                "pinned": self.pinned, "old": self.old(now), "remarks": self.remarks(now)}  # fmt: skip
        return {**asdict(self), **more}


def report(dockerfile: Path, engine: APIClient) -> list[Base]:
    """Look at every base of a Dockerfile, here and at its registry. Raises ConfigError."""
    try:
        text = dockerfile.read_text("utf-8", "replace")
    except OSError as error:
        raise ConfigError("the Dockerfile cannot be read", where=str(dockerfile), why=error.strerror or "") from None
    named = bases(text)
    with ThreadPoolExecutor(max(1, len(named))) as pool:
        return list(pool.map(lambda one: _look(engine, *one), named))


def verdict(found: Sequence[Base], now: datetime) -> int:
    """Return the exit code under `--strict`: 1 for drift or age, 3 where that cannot be told."""
    if any(one.drift or one.old(now) for one in found):
        return 1
    return 3 if any(one.drift is None and not one.stand_in for one in found) else 0


def _look(engine: APIClient, line: int, name: str) -> Base:
    if "$" in name:
        return Base(name, line, silence="it is a build argument without a default")
    registry, silence = _registry(engine, name)
    return local(name, line, _inspect(engine, name), registry, silence)


def local(name: str, line: int, known: Mapping[str, Any] | None, registry: str, silence: str) -> Base:
    """Return a base out of what the engine says about it here."""
    if known is None:
        return Base(name, line, registry=registry, silence=silence)
    stand_in = STAND_IN in ((known.get("Config") or {}).get("Labels") or {})
    digests = () if stand_in else tuple(_digests(known))
    return Base(name, line, True, stand_in, _created(known.get("Created", "")), digests, registry, silence)


def _digests(known: Mapping[str, Any]) -> Iterator[str]:
    """Yield what registries call an image; our own, which a deploy pushes to, is none."""
    for one in known.get("RepoDigests") or ():
        repository, _, digest = one.partition("@")
        if not repository.startswith("localhost:"):
            yield digest


def _created(text: str) -> datetime | None:
    """Read the engine's time; images without one say they are from the year 1 or 1970."""
    try:
        found = datetime.fromisoformat(text[:19]).replace(tzinfo=UTC)
    except ValueError:
        return None
    return found if found.year > 1980 else None


def _inspect(engine: APIClient, name: str) -> Mapping[str, Any] | None:
    from ops.engine import NotFound

    try:
        known: Mapping[str, Any] = engine.inspect_image(name)
    except NotFound:
        return None
    return known


def _registry(engine: APIClient, name: str) -> tuple[str, str]:
    """Return the digest that a registry has under a tag, or why it does not say."""
    from requests.exceptions import RequestException

    from ops.engine import EngineError

    try:
        return str(engine.inspect_distribution(name.partition("@")[0])["Descriptor"]["digest"]), ""
    except (EngineError, RequestException) as error:
        return "", str(getattr(error, "explanation", None) or error)

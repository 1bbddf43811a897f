"""What a release of Tidegate consists of: built, looked at, summed up. `nox -s release` runs it; it publishes nothing."""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ops import version
from ops.errors import ConfigError, Failed, Refused, TidegateError

ROOT = version.ROOT
INSIDE = "tidegate/_app/"  # where the wheel has a clone's layout
AGAIN = "nox -s release"
SUMS = "SHA256SUMS"
_RELEASED = re.compile(r"\d+\.\d+\.\d+((a|b|rc)\d+)?")


@dataclass(frozen=True)
class Checkout:
    """What a release is made of, as it stands."""

    version: str
    changed: tuple[str, ...]
    fragments: tuple[str, ...]
    changelog: str


@dataclass(frozen=True)
class Built:
    """The files of a release, in a folder of their own."""

    wheel: Path
    sdist: Path

    @property
    def folder(self) -> Path:
        """Where they are."""
        return self.wheel.parent


def look(root: Path = ROOT) -> Checkout:
    """Look at the checkout; git has to know it."""
    return Checkout(
        version=version.version(root),
        changed=tuple(_git(root, "status", "--porcelain").splitlines()),
        fragments=tuple(sorted(path.name for path in (root / "changelog.d").glob("*.*.md"))),
        changelog=(root / "CHANGELOG.md").read_text("utf-8"),
    )


def refusals(seen: Checkout) -> list[str]:
    """Return what speaks against publishing what stands here; pure."""
    found = []
    if seen.changed:
        found.append(f"files differ from the commit: {', '.join(line[3:] for line in seen.changed[:5])}")
    if seen.fragments:
        found.append(f"changelog.d has {len(seen.fragments)} changes that CHANGELOG.md has not: {AGAIN} -- --notes VERSION")
    if not _RELEASED.fullmatch(seen.version):
        found.append(f"the commit has no tag, it is {seen.version}: git tag -a vVERSION")
    elif f"\n## {seen.version}, " not in seen.changelog:
        found.append(f"CHANGELOG.md does not tell of {seen.version}")
    elif f"\n## {seen.version}, unreleased" in seen.changelog:
        found.append(f"CHANGELOG.md says that {seen.version} is unreleased")
    return found


def notes(wanted: str, root: Path = ROOT) -> None:
    """Write CHANGELOG.md from changelog.d; what was written there before under the version's name joins it."""
    if not _RELEASED.fullmatch(wanted):
        raise ConfigError(f"{wanted!r} is no version", where="--notes", why="expected one like 1.2.0 or 1.2.0rc1")
    if _git(root, "tag", "--list", f"v{wanted}"):
        raise Refused(f"v{wanted} is there already", fix="choose the next version")
    file = root / "CHANGELOG.md"
    file.write_text(file.read_text("utf-8").replace(f"## {wanted}, unreleased\n\n", ""), "utf-8")
    _run(root, "towncrier", "build", "--yes", "--version", wanted)


def draft(root: Path = ROOT) -> str:
    """Return what `notes` would write."""
    return _run(root, "towncrier", "build", "--draft", "--version", "NEXT")


def build(root: Path, out: Path) -> Built:
    """Build sdist and wheel, and the wheel once more from the sdist: both must be the same to the byte."""
    epoch = _git(root, "log", "-1", "--format=%ct")
    _hatchling(root, out, epoch, "sdist", "wheel")
    built = Built(next(out.glob("*.whl")), next(out.glob("*.tar.gz")))
    with tempfile.TemporaryDirectory() as scratch:
        with tarfile.open(built.sdist) as archive:
            archive.extractall(scratch, filter="data")
        again = Path(scratch) / "again"
        _hatchling(Path(scratch) / built.sdist.name.removesuffix(".tar.gz"), again, epoch, "wheel")
        if (again / built.wheel.name).read_bytes() != built.wheel.read_bytes():
            raise Failed("two builds differ", where=built.wheel.name, why="one from the checkout, one from the sdist")
    return built


def contents(built: Built, root: Path = ROOT) -> list[str]:
    """Return how wheel and sdist differ from what git has: all of it in the sdist, and nothing but the app in the wheel."""
    listed = _git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    tracked = {name for name in listed.split("\0") if name and (root / name).exists()}
    targets = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]["targets"]["wheel"]
    moved = targets["force-include"]
    app = {INSIDE + name for name in tracked - set(moved) if name.partition("/")[0] in targets["only-include"]}
    with tarfile.open(built.sdist) as archive:
        told = {one.name.partition("/")[2] for one in archive if one.isfile() or one.issym()}
    with zipfile.ZipFile(built.wheel) as wheel:
        held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    return [
        *_differ(built.wheel.name, held, app | set(moved.values())),
        *_differ(built.sdist.name, told, tracked | {"PKG-INFO"}),
    ]


def _differ(where: str, found: set[str], wanted: set[str]) -> list[str]:
    return [f"{where} lacks {name}" for name in sorted(wanted - found)] + [
        f"{where} has {name}, which it should not" for name in sorted(found - wanted)
    ]


def sums(paths: Iterable[Path]) -> str:
    """Return what `sha256sum --check` reads."""
    return "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(paths))


def make(root: Path, *, rehearsal: bool) -> Built:
    """Make all files of a release, in dist/VERSION; a rehearsal takes what stands here, tagged or not."""
    from ops.releasing_bill import bill

    seen = look(root)
    if (against := refusals(seen)) and not rehearsal:
        raise Refused("this cannot be published", why="; ".join(against))
    out = root / "dist" / seen.version
    shutil.rmtree(out, ignore_errors=True)
    built = build(root, out)
    if wrong := contents(built, root):
        raise Failed("not what should be published", why="; ".join(wrong[:10]))
    lock = (root / "requirements/runtime.txt").read_text("utf-8")
    moment = int(_git(root, "log", "-1", "--format=%ct"))
    beside = {"cdx.json": bill(seen.version, built.wheel, lock, moment), "requirements.txt": lock}
    for kind, text in beside.items():
        (out / f"tidegate-{seen.version}.{kind}").write_text(text, "utf-8")
    (out / SUMS).write_text(sums(path for path in out.iterdir() if path.name != SUMS), "utf-8")
    return built


def main(arguments: Sequence[str], root: Path = ROOT) -> int:
    """Do what was asked for; return the exit code."""
    parser = argparse.ArgumentParser(prog=f"{AGAIN} --", description=__doc__)
    parser.add_argument("--notes", metavar="VERSION", help="write CHANGELOG.md from changelog.d, and build nothing")
    parser.add_argument("--draft", action="store_true", help="show the notes, and build whatever stands here")
    asked = parser.parse_args(arguments)
    try:
        if asked.notes:
            notes(asked.notes, root)
            print(f"CHANGELOG.md is written. Look at it, commit it, then: git tag -a v{asked.notes}, and {AGAIN}")
        else:
            _tell(make(root, rehearsal=asked.draft), root, draft(root) if asked.draft else "")
    except TidegateError as error:
        print(f"✗ {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _tell(built: Built, root: Path, drafted: str) -> None:
    print(drafted, end="")
    print((built.folder / SUMS).read_text("utf-8"), end="")
    print(f"{built.folder.relative_to(root)} has all of it; nothing is published.", end=" ")
    print("This was a rehearsal." if drafted else "Next: push the tag, then upload these files.")


def _hatchling(source: Path, out: Path, epoch: str, *targets: str) -> None:
    wanted = [word for target in targets for word in ("-t", target)]
    _run(source, "hatchling", "build", "-d", str(out), *wanted, SOURCE_DATE_EPOCH=epoch)


def _run(folder: Path, module: str, *words: str, **extra: str) -> str:
    command = [sys.executable, "-m", module, *words]
    done = subprocess.run(command, cwd=folder, env={**os.environ, **extra}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"{module} failed", where=str(folder), why=(done.stderr or done.stdout).strip()[-2000:])
    return done.stdout


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", root, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused("git does not answer", where=str(root), why=done.stderr.strip())
    return done.stdout.rstrip("\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

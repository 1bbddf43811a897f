"""`python -m deploy.bench_images`: our Dockerfiles beside those that one writes first, built in the same run."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from deploy.bench_report import END, markdown
from deploy.demo_project import REPOSITORY
from deploy.image import bases_named
from deploy.images.contents import look
from deploy.images.layers import opened_image
from deploy.images.packages import packages
from ops import local_engine
from ops.bases import ensure_base
from ops.build_client import build
from ops.console import Console
from ops.errors import TidegateError
from ops.this_machine import local_client

DOCKER = REPOSITORY / "docker"
PAGE = REPOSITORY / "docs" / "images.md"
BEGIN = "<!-- begin: written by `nox -s bench_images` -->"
COLUMNS = ("image", "Dockerfile", "compressed, MB", "smaller", "rebuilt after a change of the code, s", "packages inside")
SMALLER, LARGEST_MB = 3.0, 60.0  # what the example has to be
IMAGE = "tidegate-bench-images"
EPOCH = "SOURCE_DATE_EPOCH=1750000000"


@dataclass(frozen=True)
class Subject:
    """What is built twice: its name, its context, our Dockerfile and the naive one, and a file of its code."""

    name: str
    context: Path
    ours: Path
    naive: Path
    code: str


@dataclass(frozen=True)
class Measured:
    """An image: the bytes that travel to a server with nothing, the seconds of each rebuild, the packages that scanners see."""

    compressed: int
    rebuilds: tuple[float, ...]
    packages: int


Pair = tuple[Measured, Measured]


def _template(name: str, code: str) -> Subject:
    folder = REPOSITORY / "tests" / "templates" / name
    return Subject(name, folder, DOCKER / "templates" / name / "Dockerfile", DOCKER / "naive" / f"{name}.Dockerfile", code)


SUBJECTS = (
    Subject("example", REPOSITORY / "example", DOCKER / "Dockerfile", DOCKER / "naive/example.Dockerfile", "blog/api.py"),
    _template("python", "app/__main__.py"),
    _template("node", "src/server.js"),
    _template("rust", "src/main.rs"),
    _template("static", "public/index.html"),
)


def measure(subject: Subject, dockerfile: Path, repetitions: int) -> Measured:
    """Build an image, build it again after each of some changes of the code, look into it, and remove it."""
    with _project(subject, dockerfile) as (context, copy):
        name = f"{IMAGE}:{subject.name}"
        build(context, name, "--file", str(copy), "--build-arg", EPOCH)
        seconds = tuple(_rebuild(context, copy, name, context / subject.code) for _ in range(repetitions))
        try:
            with opened_image(name, context, local_client(timeout=600).api) as image:
                return Measured(image.compressed, seconds, len(packages(look(image).files)))
        finally:
            local_client().api.remove_image(name)


@contextmanager
def _project(subject: Subject, dockerfile: Path) -> Iterator[tuple[Path, Path]]:
    """Lend a copy of an app, with all that belongs to the Dockerfile, and the Dockerfile in it."""
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder:
        context = Path(shutil.copytree(subject.context, Path(folder, subject.name), ignore=shutil.ignore_patterns("__pycache__")))
        for file in dockerfile.parent.iterdir() if dockerfile.parent.name == subject.name else (dockerfile,):
            shutil.copy(file, context)
        yield context, context / dockerfile.name


def _rebuild(context: Path, dockerfile: Path, name: str, code: Path) -> float:
    """Change the code as nobody has before, and build."""
    comment = {".py": "# {}", ".html": "<!-- {} -->"}.get(code.suffix, "// {}")
    code.write_text(f"{code.read_text()}{comment.format(time.time_ns())}\n")
    began = time.monotonic()
    build(context, name, "--file", str(dockerfile), "--build-arg", EPOCH)
    return time.monotonic() - began


def rows(found: dict[str, Pair]) -> list[tuple[str, ...]]:
    """Return the table: two lines for each image, the naive one first."""
    return [_row(name, which, one, naive) for name, (ours, naive) in found.items()
            for which, one in (("naive", naive), ("ours", ours))]  # fmt: skip


def _row(name: str, which: str, one: Measured, naive: Measured) -> tuple[str, ...]:
    smaller = f"{naive.compressed / one.compressed:.1f} ×" if one is not naive else ""
    return name, which, f"{one.compressed / 1e6:.1f}", smaller, f"{median(one.rebuilds):.2f}", str(one.packages)


def missed(found: dict[str, Pair]) -> list[str]:
    """Say which of the example's targets are missed."""
    if "example" not in found:
        return []
    ours, naive = (one.compressed / 1e6 for one in found["example"])
    small = [f"the example travels in {ours:.1f} MB, more than {LARGEST_MB:.0f}"] if ours > LARGEST_MB else []
    return small + ([f"that is only {naive / ours:.1f} times smaller than the naive one"] if naive < SMALLER * ours else [])


def page(found: dict[str, Pair], repetitions: int, when: str) -> str:
    """Return the part of docs/images.md that is measured."""
    told = f"Measured by `nox -s bench_images`, {when}; rebuilds are the median of {repetitions}."
    return f"{told}\n\n{markdown(COLUMNS, rows(found))}"


def write(document: Path, generated: str) -> None:
    """Put the measured part between its marks."""
    head, _, rest = document.read_text().partition(BEGIN)
    document.write_text(f"{head}{BEGIN}\n\n{generated}\n\n{END}{rest.partition(END)[2]}")


def run(subjects: Sequence[Subject], repetitions: int, console: Console) -> dict[str, Pair]:
    """Measure ours and the naive one of each, one after the other."""
    found: dict[str, Pair] = {}
    for one in subjects:
        for base in {*bases_named(one.ours), *bases_named(one.naive)}:
            ensure_base(base, console.say)
        console.say(f"building {one.name}: ours, then the naive one")
        found[one.name] = measure(one, one.ours, repetitions), measure(one, one.naive, repetitions)
    console.table("images", COLUMNS, rows(found))
    return found


def main(arguments: Sequence[str], subjects: Sequence[Subject] = SUBJECTS) -> int:
    """Run the command line; return the exit code: 1 when the example misses a target."""
    parser = argparse.ArgumentParser(prog="python -m deploy.bench_images", description="Compare our Dockerfiles with naive ones.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only these: {', '.join(one.name for one in subjects)}")
    parser.add_argument("--repetitions", type=int, default=3, help="how often the code changes (default: 3)")
    parser.add_argument("--docs", action="store_true", help="write docs/images.md also when only some were measured")
    options = parser.parse_args(arguments)
    chosen = [one for one in subjects if one.name in (options.names or [one.name])]
    console = Console()
    try:
        local_engine.ensure(console.say)
        found = run(chosen, options.repetitions, console)
    except TidegateError as error:
        console.say(f"✗ {error}", "red")
        return error.exit_code
    if options.docs or not options.names:
        when = f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end"
        write(PAGE, page(found, options.repetitions, when))
        console.say(f"written: {PAGE}")
    for one in missed(found):
        console.say(f"✗ {one}", "red")
    return 1 if missed(found) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

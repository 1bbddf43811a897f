"""What the demo does, in order: the commands, the changes to the code before them, and what each must end with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Change:
    """An edit of the code, small enough to follow."""

    file: str
    old: str
    new: str

    def make(self, root: Path) -> None:
        """Edit the file in the project."""
        path = root / self.file
        text = path.read_text()
        assert text.count(self.old) == 1, f"{path} is not as the demo knows it"
        path.write_text(text.replace(self.old, self.new))


@dataclass(frozen=True)
class Act:
    """A command: what it shows, its words, its exit code, and the number of the version that serves after it."""

    title: str
    words: tuple[str, ...]
    serves: int
    code: int = 0
    change: Change | None = None


@dataclass(frozen=True)
class Row:
    """What came of a command; `well` when it ended as it should and nobody noticed."""

    title: str
    command: str
    code: int
    seconds: float
    well: bool
    requests: int = 0
    failures: int = 0
    p50: float = 0.0
    p99: float = 0.0
    serving: tuple[str, ...] = ()


_TITLE = 'title = os.environ.get("BLOG_TITLE", "Blog")'
_RUN = "Server(config).run()"
NEWER = Change("example/blog/api.py", _TITLE, f'{_TITLE} + ", second edition"')
BROKEN = Change("example/blog/server.py", _RUN, "raise RuntimeError(\"there is no option 'colour'\")")

FIRST = Act("the first version, to servers that have nothing", ("deploy",), serves=1)
ACTS = (
    Act("the second version: a new title on the front page", ("deploy",), serves=2, change=NEWER),
    Act("a version that crashes at start", ("deploy",), serves=2, code=1, change=BROKEN),
    Act("back to the first version", ("deploy.rollback",), serves=1),
)

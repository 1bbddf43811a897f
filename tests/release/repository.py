"""Git repositories to build releases of: small ones of the same layout as this one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "tidegate"
requires-python = ">=3.11"
dynamic = ["version"]

[tool.hatch.version]
source = "code"
path = "ops/version.py"
expression = "version()"

[tool.hatch.build.targets.wheel]
only-include = ["ops"]

[tool.hatch.build.targets.wheel.sources]
ops = "tidegate/_app/ops"

[tool.hatch.build.targets.wheel.force-include]
"tasks.py" = "tidegate/_app/tasks.py"
"""
LOCK = """\
invoke==2.2.1 \\
    --hash=sha256:00 \\
    --hash=sha256:11
colorama==0.4.6 ; sys_platform == 'win32' \\
    --hash=sha256:22
"""
CHANGELOG = "# Changes\n\n<!-- new releases go below this line -->\n\n## 1.2.0, unreleased\n\nThe first release.\n"


def git(root: Path, *words: str) -> str:
    """Run git as somebody; return what it says."""
    who = ["-c", "user.name=Mara", "-c", "user.email=mara@example.com", "-c", "init.defaultBranch=main"]
    return subprocess.run(["git", "-C", root, *who, *words], check=True, capture_output=True, text=True).stdout.strip()


def commit(root: Path) -> None:
    """Commit all there is."""
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "work")


def repository(root: Path) -> Path:
    """Make a repository of one commit, from which releases can be made."""
    towncrier = (ROOT / "pyproject.toml").read_text().partition("[tool.towncrier]")
    texts = {
        "pyproject.toml": PYPROJECT + "".join(towncrier[1:]).partition("\n\n")[0] + "\n",
        ".gitignore": "dist/\n.env.*\n__pycache__/\n",
        "README.md": "An app.\n",
        "CHANGELOG.md": CHANGELOG,
        "changelog.d/+sharks.added.md": "Sharks.\n",
        "requirements/runtime.txt": LOCK,
        "tasks.py": "",
        "ops/.env.production": "TOKEN=secret\n",
    }
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    shutil.copy(ROOT / "ops/version.py", root / "ops")
    shutil.copy(ROOT / "changelog.d/template.md", root / "changelog.d")
    git(root, "init", "--quiet")
    commit(root)
    return root

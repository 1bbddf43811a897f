"""What a Dockerfile gets wrong for a deploy is found with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.images.dockerfile import bases, instructions, stages
from deploy.images.lint import Mistake, Setting, ask_hadolint, hadolint, lint, setting_of
from ops.errors import ConfigError, Failed
from tests.deploy.images.test_secret_rules import TOKENS

GOOD = "FROM debian:trixie-slim\nUSER 10001:10001\nHEALTHCHECK CMD true\n"
FINE = Setting(ignores=True, health=True)
BARE = Setting(ignores=False, health=False)


def found(tmp_path: Path, text: str, setting: Setting = BARE) -> list[tuple[int, str]]:
    file = tmp_path / "Dockerfile"
    file.write_text(text)
    return [(one.line, one.rule) for one in lint(file, setting)]


def test_a_good_one_is_clean(tmp_path: Path) -> None:
    assert found(tmp_path, GOOD) == []


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("FROM debian\nUSER 0\n", 2),
        ("FROM debian\nUSER root:root\n", 2),
        ("FROM debian\nUSER app\n", 2),
        ("FROM debian\nRUN true\n", 1),
        ("FROM debian\nUSER 10001\nUSER root\n", 3),
        ("FROM debian AS build\nUSER 10001\nFROM debian\nCOPY --from=build /a /a\n", 3),
    ],
)
def test_a_user_that_is_root_or_a_name_is_found(tmp_path: Path, text: str, line: int) -> None:
    assert found(tmp_path, text, FINE) == [(line, "root")]


@pytest.mark.parametrize(
    "text",
    [
        "FROM debian\nUSER 10001\n",
        "FROM debian\nARG ID=5\nUSER $ID:$ID\n",
        "FROM debian AS one\nUSER 10001\nFROM one\nRUN true\n",
        "FROM debian\nUSER 10001\nFROM 0\nRUN true\n",
        "FROM debian\n# tidegate ignore=root, the device needs it\nUSER root\n",
    ],
)
def test_a_number_is_fine_wherever_it_comes_from(tmp_path: Path, text: str) -> None:
    assert found(tmp_path, text, FINE) == []


def test_something_has_to_say_what_healthy_is(tmp_path: Path) -> None:
    assert found(tmp_path, "FROM debian\nUSER 1\n") == [(1, "health")]
    assert found(tmp_path, "FROM debian\nUSER 1\nHEALTHCHECK NONE\n") == [(3, "health")]
    assert found(tmp_path, "FROM debian AS a\nHEALTHCHECK CMD true\nFROM a\nUSER 1\n") == []
    assert found(tmp_path, "FROM debian\nUSER 1\n", FINE) == []


@pytest.mark.parametrize(
    "line",
    [
        "ARG NPM_TOKEN",
        "ENV DB_PASSWORD=hunter2",
        "ENV DB_PASSWORD hunter2",
        f"ENV MISC={TOKENS['npm token']}",
        "ARG A=1 \\\n    API_KEY=2",
    ],
)
def test_a_secret_in_an_argument_or_a_variable_is_found(tmp_path: Path, line: str) -> None:
    assert found(tmp_path, f"{GOOD}{line}\n") == [(4, "secret")]


@pytest.mark.parametrize(
    "line",
    ["ARG VERSION=1", "ENV DB_PASSWORD_FILE=/run/secrets/db", "ENV DB_PASSWORD=", "ENV TITLE=\"it's", "# tidegate ignore=secret\nARG CSRF_TOKEN"],
)  # fmt: skip
def test_other_arguments_and_variables_are_fine(tmp_path: Path, line: str) -> None:
    assert found(tmp_path, f"{GOOD}{line}\n") == []


def test_everything_is_copied_only_where_something_is_ignored(tmp_path: Path) -> None:
    text = f"{GOOD}COPY --chown=1 . /app\nADD ./ /b\nCOPY --from=x . /c\nCOPY src /d\n"
    assert found(tmp_path, text) == [(4, "everything"), (5, "everything")]
    assert found(tmp_path, text, FINE) == []
    assert found(tmp_path, f"{GOOD}# tidegate ignore=everything\nCOPY . /app\n") == []


def test_what_is_around_a_dockerfile_is_looked_at(tmp_path: Path) -> None:
    assert setting_of(tmp_path / "Dockerfile", tmp_path, health=True) == Setting(ignores=False, health=True)
    (tmp_path / ".dockerignore").touch()
    assert setting_of(tmp_path / "Dockerfile", tmp_path, health=False) == Setting(ignores=True, health=False)
    (tmp_path / "Dockerfile.dockerignore").touch()
    assert setting_of(tmp_path / "Dockerfile", tmp_path / "none", health=False).ignores


def test_what_is_no_dockerfile_is_told(tmp_path: Path) -> None:
    assert found(tmp_path, "# nothing\n") == [(1, "from")]
    assert found(tmp_path, "FROM debian\nFROM --platform=linux/amd64\n") == [(2, "from")]
    with pytest.raises(ConfigError, match="cannot be read"):
        lint(tmp_path / "none", FINE)


def test_a_finding_about_what_is_not_there_is_left_out_above_the_last_from(tmp_path: Path) -> None:
    assert found(tmp_path, "FROM debian AS a\n# tidegate ignore=root,health\nFROM distroless:nonroot\n") == []
    assert found(tmp_path, "FROM debian\nUSER 1\n# tidegate ignore=health\nHEALTHCHECK NONE\n") == []


def program(folder: Path, script: str) -> Path:
    file = folder / "hadolint"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return file


def test_hadolint_is_asked_about_the_very_files(tmp_path: Path) -> None:
    told = '[{"file": "Dockerfile", "line": 1, "code": "DL3006", "message": "Always tag", "level": "warning", "column": 1}]'
    asked = program(tmp_path, f"""test "$*" = "--no-fail --format json Dockerfile" && echo '{told}'""")
    assert ask_hadolint(asked, [Path("Dockerfile")]) == [Mistake("Dockerfile", 1, "DL3006", "Always tag")]


def test_a_hadolint_that_does_not_answer_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="it broke"):
        ask_hadolint(program(tmp_path, "echo it broke >&2"), [Path("Dockerfile")])


@pytest.mark.skipif(hadolint() is None, reason="hadolint is not installed")
def test_the_real_one_answers_as_we_read_it(tmp_path: Path) -> None:
    real = hadolint()
    assert real
    (tmp_path / "Dockerfile").write_text("FROM debian\nRUN cd /tmp\n")
    found = ask_hadolint(real, [tmp_path / "Dockerfile"])
    assert (found[0].line, found[0].rule) == (1, "DL3006")


def test_a_missing_hadolint_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert hadolint() is None


def test_lines_are_joined_comments_kept_and_heredocs_left_out() -> None:
    text = "# one\n# two\nRUN a \\\n  # between\n\n  b\n\n# lost\n\nRUN <<END && true\nUSER root\nEND\ncopy <<A <<'B' /\nx\nA\ny\nB\nUSER 1\\"
    assert [(one.line, one.word, one.rest, one.comments) for one in instructions(text)] == [
        (3, "RUN", "a b", ("one", "two")),
        (10, "RUN", "<<END && true", ()),
        (13, "COPY", "<<A <<'B' /", ()),
        (18, "USER", "1", ()),
    ]


@pytest.mark.parametrize("line", ["RUN echo $((1<<3))", "RUN echo $((1 << 3))", "RUN cat <<< END", "RUN cat <<<END"])
def test_what_only_looks_like_a_heredoc_swallows_nothing(line: str) -> None:
    assert [one.word for one in instructions(f"FROM a\n{line}\nUSER 1\n")] == ["FROM", "RUN", "USER"]


def test_stages_have_their_bases_filled_in() -> None:
    text = "ARG BASE=debian:trixie-slim\nARG FULL=${BASE}\nFROM --platform=linux/amd64 $FULL AS one\nFROM ${NONE:-node:24}\nFROM $NONE\n"
    assert [(one.line, one.base, one.name) for one in stages(text)] == [
        (3, "debian:trixie-slim", "one"),
        (4, "node:24", ""),
        (5, "$NONE", ""),
    ]


def test_bases_are_those_from_outside_once() -> None:
    text = (
        "FROM debian:trixie-slim AS one\nFROM debian:trixie-slim\nCOPY --from=one /a /\nCOPY --from=ghcr.io/uv:1 /uv /\n"
        "RUN --mount=type=bind,from=tools:2,target=/t true\nFROM scratch\nCOPY --from=1 / /\n"
    )
    assert bases(text) == [(1, "debian:trixie-slim"), (4, "ghcr.io/uv:1"), (5, "tools:2")]
    mounts = "RUN --mount=from=b,target=/b --mount=type=bind,from=c:1,target=/c make --from=2024\n"
    assert bases(f"FROM a\n{mounts}") == [(1, "a"), (2, "b"), (2, "c:1")]

"""The demo's pure parts: its edits of the code, its verdict, and what its users make of answers."""

from __future__ import annotations

import io
import tomllib
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from deploy import demo, demo_project
from deploy.demo import Demo, address
from deploy.demo_project import REPOSITORY, environment, renamed, renew
from deploy.demo_story import ACTS, BROKEN, FIRST, NEWER, Act, Change, Row
from deploy.demo_users import Answer, Crowd, Seen, Users, percentile, seen
from deploy.demo_view import View, cells
from deploy.sandbox_server import SandboxServer
from ops.console import Console

SERVERS = [SandboxServer(f"tidegate-abc123-{nth}", "running", (20022 + nth, 20080 + nth, 20443 + nth)) for nth in (1, 2)]


def a_demo(*serving: str) -> Demo:
    known = Demo(2, 160.0, View(Console()))
    known.crowd = Crowd([Users(server, "blog.localhost", 80.0) for server in SERVERS])
    for users, version in zip(known.crowd.users, serving, strict=False):
        users.serving = version
    return known


def a_row(*, well: bool = True, code: int = 0) -> Row:
    return Row("title", "inv deploy", code, 2.5, well, 400, 0 if well else 3, 0.004, 0.0213, ("v2", "v2"))


def test_the_project_is_the_bundled_example_under_a_name_of_its_own(tmp_path: Path) -> None:
    renew(tmp_path, "demo")
    bundled, own = (tomllib.loads((root / "ops.toml").read_text()) for root in (REPOSITORY, tmp_path))
    assert own == {**bundled, "app": {**bundled["app"], "name": "demo"}}
    assert (tmp_path / "docker/Dockerfile").read_text() == (REPOSITORY / "docker/Dockerfile").read_text()


def test_only_the_app_is_renamed() -> None:
    assert renamed('[app]\nname = "blog"\n[x]\nname = "other"\n', "demo") == '[app]\nname = "demo"\n[x]\nname = "other"\n'


def test_making_the_project_again_takes_back_what_the_demo_changed(tmp_path: Path) -> None:
    renew(tmp_path, "demo")
    NEWER.make(tmp_path)
    renew(tmp_path, "demo")
    assert (tmp_path / NEWER.file).read_text() == (REPOSITORY / NEWER.file).read_text()


@pytest.mark.parametrize("change", [NEWER, BROKEN])
def test_every_change_still_fits_the_example_and_leaves_it_python(change: Change, tmp_path: Path) -> None:
    renew(tmp_path, "demo")
    change.make(tmp_path)
    text = (tmp_path / change.file).read_text()
    assert change.new in text
    compile(text, change.file, "exec")


def test_a_change_that_no_longer_fits_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "file.py").write_text("a = 1\n")
    with pytest.raises(AssertionError, match="not as the demo knows it"):
        Change("file.py", "b = 1", "b = 2").make(tmp_path)


def test_commands_do_not_see_the_git_repository_around_the_folder_nor_another_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEGATE_CONFIG", "/elsewhere/ops.toml")
    known = environment(tmp_path / "demo")
    assert "TIDEGATE_CONFIG" not in known
    assert known["GIT_CEILING_DIRECTORIES"] == str(tmp_path.resolve())


def test_percentiles_are_of_good_answers_and_failures_are_counted() -> None:
    answers = [Answer(number / 1000, "") for number in range(1, 101)] + [Answer(9.0, "timeout")]
    assert seen(answers) == Seen(requests=101, failures=1, p50=0.05, p99=0.099)


def test_nothing_seen_is_no_error() -> None:
    assert seen([]) == Seen(0, 0, 0.0, 0.0)
    assert percentile([7.0], 0.99) == 7.0


def test_the_address_is_one_that_browsers_resolve_to_this_machine() -> None:
    assert address(Users(SERVERS[0], "blog.localhost", 80.0)) == "http://blog.localhost:20081"


def test_a_new_version_must_answer_on_every_server_and_differ_from_the_old() -> None:
    second = ACTS[0]
    for serving, right in {("v2", "v2"): True, ("v2", "v1"): False, ("v1", "v1"): False}.items():
        known = a_demo(*serving)
        known.versions = [("v1", "v1")]
        assert known._right(second, serving) is right


def test_after_the_version_that_crashes_and_after_the_rollback_the_expected_version_must_answer() -> None:
    known = a_demo()
    known.versions = [("v1", "v1"), ("v2", "v2")]
    crash, back = ACTS[1:]
    assert known._right(crash, ("v2", "v2"))
    assert not known._right(crash, ("v3", "v3"))
    assert known._right(back, ("v1", "v1"))
    assert not known._right(back, ("v1", "v2"))


def test_the_story_has_a_first_version_a_second_one_a_failure_and_a_rollback() -> None:
    assert [(act.words, act.code, act.serves) for act in (FIRST, *ACTS)] == [
        (("deploy",), 0, 1), (("deploy",), 0, 2), (("deploy",), 1, 2), (("deploy.rollback",), 0, 1),
    ]  # fmt: skip


@pytest.mark.parametrize("spoilt", ["nothing", "a command", "too few commands", "a lost post", "nobody came"])
def test_the_verdict_is_good_only_when_everything_is(spoilt: str) -> None:
    known = a_demo("v1", "v1")
    known.rows = [a_row() for _ in range(len(ACTS) + 2)]
    if spoilt == "a command":
        known.rows[3] = a_row(well=False)
    if spoilt == "too few commands":
        known.rows.pop()
    if spoilt == "nobody came":
        known.crowd = Crowd(())
    assert known.document({"a post"} if spoilt == "a lost post" else set())["ok"] is (spoilt == "nothing")


def test_a_refused_version_is_told_as_failed_and_undone() -> None:
    assert cells(a_row(code=1)) == ("inv deploy", "✓ failed, undone", 1, "2.5", 400, 0, "21 ms", "v2")
    assert cells(a_row(well=False))[1] == "✗ done"


def test_the_end_names_failures_and_lost_posts() -> None:
    users = {
        "one": {
            "requests": 50,
            "failures": 1,
            "acknowledged_posts": 9,
            "examples": {"reset": "GET, fresh"},
            "reasons": {"reset": 1},
        }
    }
    with redirect_stdout(io.StringIO()) as out:
        View(Console()).tell([a_row()], {"users": users, "lost_posts": ["p"], "ok": False, "seconds": 61.2})
    assert (
        "✗ users sent 50 requests; 1 failed\n    ✗ 1 × reset: GET, fresh\n✗ 9 posts were acknowledged; 1 are lost\n"
        in out.getvalue()
    )


def test_without_a_terminal_there_is_no_live_table() -> None:
    with redirect_stdout(io.StringIO()) as out, View(Console()).watching(Crowd(())):
        pass
    assert out.getvalue() == ""


def test_the_demo_has_a_folder_of_its_own() -> None:
    assert demo.ROOT != REPOSITORY
    assert demo.ROOT.is_relative_to(REPOSITORY / ".tidegate")
    assert demo_project.inv("deploy")[1:] == ["-m", "invoke", "-r", str(REPOSITORY), "deploy"]


def test_an_act_says_what_it_expects() -> None:
    assert Act("title", ("deploy",), serves=1).code == 0

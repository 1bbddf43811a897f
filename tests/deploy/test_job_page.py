"""The page of a CI job tells what was planned, what came of it and what users saw, however the command ended."""

from __future__ import annotations

from pathlib import Path

import pytest
from invoke import Exit

from deploy.job_page import FILE, Page, job_page
from deploy.model import ProbeReport
from deploy.plan import Phase, Plan
from deploy.release import Summary
from deploy.steps import StartEdge
from ops.errors import Failed
from ops.program import WHEEL, called

PLAN = Plan("deploy", "staging", "3-1.4.0", "1.4.0", {"web-1": "2-1.3.0", "web-2": None}, notes=("the schema has moved",))
DONE = Summary("deploy", "staging", "done", "3-1.4.0", "1.4.0", ["web-1"], url="https://shop.example", seconds=12.34, backup="20260101-1",
               phases={"ship": 1.5, "switch": 0.25}, notes=["a notice was not sent"],
               probes={"web-1": ProbeReport(400, 2, 0.0021, 0.0098, reasons={"status 502": 2})})  # fmt: skip


def page(**known: object) -> str:
    return Page(**known).render()  # type: ignore[arg-type]


def test_a_deploy_tells_release_servers_phases_and_users() -> None:
    text = page(plan=PLAN, summary=DONE)
    assert text.startswith("## deploy 1.4.0 → staging: done\n")
    for line in ("| release | 3-1.4.0 |", "| before | web-1: 2-1.3.0, web-2: nothing |", "| address | https://shop.example |",
                 "| backup of the data | 20260101-1 |", "| took | 12.3 s |", "| ship the image | 1.50 s |", "| switch | 0.25 s |",
                 "| web-1 | 400 | 2 | 2.1 ms | 9.8 ms | 2 × status 502 |", "- the schema has moved", "- a notice was not sent"):  # fmt: skip
        assert line in text.splitlines(), line


def test_every_step_of_the_plan_is_there_with_its_reason() -> None:
    step = StartEdge(why="the edge does not run_at_all")
    plan = Plan("prune", "staging", "", "", {}, phases=(Phase("prune", {"web-1": (step,)}),))
    text = page(plan=plan)
    assert "the plan: 1 steps" in text
    assert "| the edge does not run\\_at\\_all |" in text


def test_refusals_are_told() -> None:
    plan = Plan("deploy", "staging", "3", "3", {}, refusals=("web-1: 0.1 GB are free",))
    error = Failed("deploy refused, nothing was changed")
    assert "- refused: web-1: 0.1 GB are free" in Page(plan, Summary("deploy", "staging", "")).render(error)


def test_a_failure_tells_what_where_and_next_but_not_its_cause() -> None:
    error = Failed(
        "the new release is not healthy", where="web-1", why="Traceback: password=hunter2", fix="inv deploy.logs -e staging"
    )
    text = Page(PLAN, Summary("deploy", "staging", "", phases={"ship": 1.0})).render(error)
    assert "staging: web-1: the new release is not healthy (next: inv deploy.logs -e staging)" in text.splitlines()[0]
    assert "| ship the image | 1.00 s |" in text
    assert "took" not in text.splitlines()[4]
    assert "hunter2" not in text


def test_commands_are_told_as_people_here_type_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.job_page.called", lambda text: called(text, WHEEL))
    assert "next: tidegate deploy.logs" in Page(PLAN).render(Failed("it failed", fix="inv deploy.logs"))


def test_what_ended_before_there_was_a_plan_is_told() -> None:
    assert Page().render(Failed("cannot connect", where="web-1")) == "## web-1: cannot connect\n"
    assert Page().render(KeyboardInterrupt()) == "## ended early: KeyboardInterrupt\n"
    assert Page().render() == "## nothing was done\n"


def test_a_plan_that_was_declined_is_told() -> None:
    assert "staging: declined" in Page(PLAN, Summary("deploy", "staging", "declined")).render(Exit("declined", 3))


@pytest.mark.parametrize(
    "hostile", ["a|b", "<script>alert(1)</script>", "[x](https://evil.example)", "`rm`", "one\n## two", "*bold*"]
)
def test_what_comes_from_outside_is_shown_literally(hostile: str) -> None:
    plain = page(plan=PLAN, summary=Summary("deploy", "staging", "done"))
    text = page(plan=PLAN, summary=Summary("deploy", "staging", "done", notes=[hostile]))
    assert len(text.splitlines()) == len(plain.splitlines()) + 2
    assert hostile not in text


def test_it_is_appended_to_the_file_that_ci_names(tmp_path: Path) -> None:
    file = tmp_path / "summary.md"
    file.write_text("before\n")
    with job_page({FILE: str(file)}) as open_page:
        open_page.plan, open_page.summary = PLAN, DONE
    assert file.read_text().startswith("before\n## deploy 1.4.0")


def test_it_is_written_when_the_command_fails_and_the_failure_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "summary.md"
    with pytest.raises(Failed), job_page({FILE: str(file)}):
        raise Failed("no room", where="web-1")
    assert file.read_text() == "## web-1: no room\n\n"


def test_nothing_is_written_outside_of_ci(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with job_page({}):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_page_that_cannot_be_written_is_a_remark_and_hides_no_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with job_page({FILE: str(tmp_path)}):
        pass
    with pytest.raises(Failed, match="no room"), job_page({FILE: str(tmp_path / "none" / "page")}):
        raise Failed("no room")
    said = capsys.readouterr().err
    assert said.count("the page of this job is not written: ") == 2

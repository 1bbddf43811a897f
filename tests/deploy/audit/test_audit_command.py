"""The command line, and what an audit tells people and scripts."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from invoke import Program

import tasks
from deploy import programs
from deploy.audit.__main__ import main
from deploy.audit.model import Accepted, Advisory, Finding, Gap, Lock, Report, listed
from deploy.audit.show import show, verdict
from ops.console import Console
from tests.deploy.audit.audit_cases import ADVISORIES, FIXED, VULNERABLE, folder
from tests.docs.documents import ROOT

LOCK = Lock(Path("requirements.lock"), "Python", Path())
ADVISORY = Advisory("requests", "2.30.0", "PYSEC-2023-74", ("CVE-2023-32681",), ("2.31.0",), "It leaks " + "a lot of words " * 20)
FOUND = Finding(LOCK, ADVISORY, "upgrade requests")
IGNORED = replace(FOUND, accepted=Accepted("no proxies are used", date(2024, 12, 31)))
GAP = Gap("Cargo.lock", "nobody answered", "try again")
CLEAN = Report(("https://osv.example.com",), ((LOCK, 12),), (), (), ())

needs_pip_audit = pytest.mark.skipif(not programs.which("pip-audit"), reason="pip-audit is not installed")


@pytest.mark.parametrize(
    ("findings", "gaps", "code", "said"),
    [
        ((), (), 0, "no known vulnerabilities"),
        ((IGNORED,), (), 0, "no known vulnerabilities, 1 ignored"),
        ((FOUND,), (), 1, "known vulnerabilities: 1"),
        ((FOUND, IGNORED), (GAP,), 1, "known vulnerabilities: 1, 1 ignored, 1 not audited"),
        ((), (GAP,), 3, "not clean, 1 not audited"),
    ],
)
def test_an_audit_is_clean_only_when_all_was_audited_and_nothing_found(
    findings: tuple[Finding, ...], gaps: tuple[Gap, ...], code: int, said: str
) -> None:
    report = replace(CLEAN, findings=findings, gaps=gaps)
    assert (report.exit_code, verdict(report)) == (code, said)
    assert (report.document()["clean"], report.document()["exit_code"]) == (code == 0, code)


def test_people_see_what_was_found_where_and_what_comes_next(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    show(Console(), replace(CLEAN, findings=(FOUND, IGNORED), gaps=(GAP,), warnings=("it is old",)))
    said = capsys.readouterr().out
    for text in ("asked: https://osv.example.com", "requirements.lock: 12 packages", "! it is old", "PYSEC-2023-74", "2.31.0", "…",
                 "ignored until 2024-12-31, no proxies are used: It leaks", "not audited: Cargo.lock", "cause: nobody answered", "next:  try again",
                 "next:  upgrade requests"):  # fmt: skip
        assert text in said
    assert said.count("upgrade requests") == 1


def test_scripts_get_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    show(Console(as_json=True), replace(CLEAN, findings=(IGNORED,)))
    document = json.loads(capsys.readouterr().out)
    assert document["audited"] == [{"lock": "requirements.lock", "kind": "Python", "packages": 12}]
    [finding] = document["findings"]
    assert finding["ignored"] == {"reason": "no proxies are used", "expires": "2024-12-31"}
    assert (finding["id"], finding["fixed"], finding["next"]) == ("PYSEC-2023-74", ["2.31.0"], "upgrade requests")


def test_a_long_list_is_shortened() -> None:
    assert listed("abcdefg") == "a, b, c, d, e and 2 more"


def test_a_mistake_in_what_is_written_has_its_own_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder(tmp_path, "requests==2.31.0\n")
    assert main([str(tmp_path), "--json"]) == 2
    document = json.loads(capsys.readouterr().out)
    assert document["exit_code"] == 2
    assert "has no hashes for requests 2.31.0" in document["error"]


def test_without_a_target_this_folder_is_audited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder(tmp_path, FIXED))
    monkeypatch.setattr(programs, "which", lambda _name: None)
    assert main(["--offline", str(ADVISORIES)]) == 3
    assert "not audited: pip-audit is not installed" in capsys.readouterr().out


@needs_pip_audit
def test_the_command_fails_for_a_vulnerable_lock(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "deploy.audit", "--offline", str(ADVISORIES), str(folder(tmp_path, VULNERABLE))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "uv pip compile --generate-hashes --upgrade-package requests" in done.stdout
    assert "known vulnerabilities: 1" in done.stdout


@needs_pip_audit
def test_the_app_of_ops_toml_is_audited_by_a_task() -> None:
    command = [str(Path(sys.executable).with_name("inv")), "audit", "--offline", str(ADVISORIES), "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [one["lock"] for one in json.loads(done.stdout)["audited"]] == ["example/requirements.lock"]


@pytest.mark.parametrize("option", ["--offline", "--osv-url"])
def test_an_option_that_is_empty_asks_no_service_but_is_refused(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(folder(tmp_path, FIXED)), option, ""]) == 2
    assert f"{option} is empty" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        Program(namespace=tasks.namespace).run(["inv", "audit", option, ""])
    assert ended.value.code == 2


def test_a_task_that_cannot_audit_ends_with_its_exit_code(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("inv")), "audit", "--offline", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "holds no advisories about Python packages" in done.stdout

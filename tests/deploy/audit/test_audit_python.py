"""Python locks, asked about by the real pip-audit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deploy import programs
from deploy.audit import osv, osv_service
from deploy.audit.auditing import audit
from deploy.audit.model import Pin, Report
from deploy.audit.pip_audit import ask
from ops.errors import ConfigError, Refused
from tests.deploy.audit.audit_cases import ADVISORIES, FIXED, FOR_ANOTHER_SYSTEM, NOW, VULNERABLE, folder, service

pytestmark = pytest.mark.skipif(not programs.which("pip-audit"), reason="pip-audit is not installed")

IGNORE = '[[ignore]]\nid = "CVE-2023-32681"\nreason = "no proxies are used"\nexpires = 2024-12-31\n'
ELSEWHERE = "theirs @ https://example.com/theirs.whl --hash=sha256:aa\n"


def offline(place: Path) -> Report:
    return audit([place], NOW, offline=ADVISORIES)


def found(report: Report) -> list[tuple[str, str, str]]:
    return [(one.advisory.package, one.advisory.version, one.advisory.id) for one in report.open]


def test_a_known_vulnerable_release_is_found_with_what_mends_it(tmp_path: Path) -> None:
    report = offline(folder(tmp_path, VULNERABLE))
    assert report.exit_code == 1
    assert found(report) == [("requests", "2.30.0", "PYSEC-2023-74")]
    [finding] = report.findings
    assert finding.advisory.fixed == ("2.31.0",)
    assert "CVE-2023-32681" in finding.advisory.aliases
    assert "leaking Proxy-Authorization headers" in finding.advisory.summary
    compiled = "uv pip compile --generate-hashes --upgrade-package requests requirements.in -o requirements.lock"
    assert finding.fix == f"cd {tmp_path} && {compiled}"


def test_the_fixed_release_is_clean_and_an_ignore_that_nothing_needs_any_more_is_told(tmp_path: Path) -> None:
    report = offline(folder(tmp_path, FIXED, IGNORE))
    assert (report.exit_code, report.findings, report.gaps) == (0, (), ())
    [warning] = report.warnings
    assert "the ignore of CVE-2023-32681 is about: remove it" in warning
    assert [packages for _, packages in report.audited] == [1]
    assert report.asked[0].endswith("advisories, the newest 8 days old")


def test_entries_for_other_systems_do_not_disappear(tmp_path: Path) -> None:
    report = offline(folder(tmp_path, FIXED + FOR_ANOTHER_SYSTEM))
    assert found(report) == [("idna", "3.6", "PYSEC-2024-60")]
    assert [packages for _, packages in report.audited] == [3]


def test_each_finding_names_the_lock_that_holds_it_and_the_projects_own_way_out(tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        folder(tmp_path, FIXED if name == "three" else VULNERABLE, name=f"requirements-{name}.lock")
    (tmp_path / "audit.toml").write_text('upgrade = "nox -s lock -- --upgrade-package {package}"')
    report = offline(tmp_path)
    assert [one.lock.path.name for one in report.open] == ["requirements-one.lock", "requirements-two.lock"]
    assert {one.fix for one in report.open} == {f"cd {tmp_path} && nox -s lock -- --upgrade-package requests"}


def test_an_ignored_finding_is_shown_and_no_longer_fails(tmp_path: Path) -> None:
    report = offline(folder(tmp_path, VULNERABLE, IGNORE))
    assert report.exit_code == 0
    [finding] = report.findings
    assert finding.accepted is not None
    assert finding.accepted.reason == "no proxies are used"


def test_ignores_are_read_before_anybody_is_asked(tmp_path: Path) -> None:
    place = folder(tmp_path, VULNERABLE, IGNORE.replace("2024-12-31", "2024-07-01"))
    with pytest.raises(ConfigError, match="has expired"):
        audit([place], NOW, offline=tmp_path / "nowhere")


def test_what_comes_from_no_index_keeps_an_audit_from_being_clean(tmp_path: Path) -> None:
    report = offline(folder(tmp_path, FIXED + ELSEWHERE))
    assert report.exit_code == 3
    assert "theirs.whl" in report.gaps[0].what


def test_a_folder_without_advisories_audits_nothing(tmp_path: Path) -> None:
    report = audit([folder(tmp_path, FIXED, IGNORE)], NOW, offline=tmp_path)
    assert (report.exit_code, report.audited, report.warnings) == (3, (), ())
    assert "no advisories about Python packages" in report.gaps[0].what


def test_old_advisories_are_used_with_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "which", lambda _name: None)
    report = audit([folder(tmp_path, FIXED)], NOW.replace(year=2025), offline=ADVISORIES)
    assert report.asked[0].endswith("the newest 373 days old")
    assert "knows nothing that became known after 2024-07-11" in report.warnings[0]


NOBODY = "http://127.0.0.1:9/v1/query"


def test_a_service_that_is_down_is_an_error_of_its_own(tmp_path: Path) -> None:
    report = audit([folder(tmp_path, FIXED)], NOW, url=NOBODY)
    assert (report.exit_code, report.audited, report.findings) == (3, (), ())
    assert report.gaps[0].what == f"{NOBODY} did not say which releases are vulnerable"
    assert "Connection refused" in report.gaps[0].why
    assert "--offline" in report.gaps[0].fix


PIN = Pin("requests", "2.30.0", ("sha256:aa",))


@pytest.mark.parametrize(
    ("status", "body", "cause"),
    [
        (500, "", "ServiceError"),
        (200, "<html>please sign in</html>", "JSONDecodeError"),
        (200, "{}", "no vulnerability service"),
    ],
)
def test_an_answer_that_is_none_is_never_clean(status: int, body: str, cause: str) -> None:
    with service({}, (status, body)) as address, pytest.raises(Refused) as refused:
        ask([PIN], address)
    assert cause in refused.value.why


def test_a_service_that_knows_what_everybody_knows_is_believed() -> None:
    with osv_service.serving(osv.load(ADVISORIES)) as address:
        answer = ask([PIN], address)
    assert (answer.packages, [one.id for one in answer.advisories]) == (1, ["PYSEC-2023-74"])


def test_what_pip_audit_passes_over_is_told() -> None:
    strange = json.dumps({"vulns": [{"id": "OURS-1", "schema_version": "2.0", "affected": []}]})
    with service({}, (200, strange)) as address:
        answer = ask([PIN], address, vouched=True)
    assert "Unsupported OSV schema version" in answer.warnings[0]


def test_a_tool_that_is_missing_is_said_with_what_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    report = offline(folder(tmp_path, FIXED))
    assert report.exit_code == 3
    assert (report.gaps[0].what, report.gaps[0].fix) == ("pip-audit is not installed", "pipx install pip-audit")


def program(place: Path, name: str, text: str) -> None:
    path = place / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_a_release_that_was_left_out_is_not_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "pip-audit", """echo '{"dependencies": [{"name": "requests", "skip_reason": "tired"}]}'""")
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    with pytest.raises(Refused, match=r"pip-audit left out requests 2.30.0"):
        ask([PIN], NOBODY, vouched=True)


def test_a_tool_that_never_ends_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "pip-audit", "exec tail -f /dev/null")
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setattr(programs, "PATIENCE", 0.2)
    with pytest.raises(Refused, match=r"pip-audit did not end within 0.2 s"):
        ask([PIN], NOBODY, vouched=True)


def test_a_tool_that_fails_in_another_encoding_is_told_in_what_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, "pip-audit", r"printf 'caf\351' >&2; exit 1")
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    with pytest.raises(Refused, match="caf\N{REPLACEMENT CHARACTER}"):
        ask([PIN], NOBODY, vouched=True)


def test_a_tool_that_fails_without_a_word_is_told_by_its_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "pip-audit", "exit 7")
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    with pytest.raises(Refused, match="exit code 7, and not a word"):
        ask([PIN], NOBODY, vouched=True)

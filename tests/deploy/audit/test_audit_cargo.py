"""Rust locks, asked about by the real cargo audit where it is installed."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from deploy import programs
from deploy.audit import cargo_audit
from deploy.audit.auditing import audit
from deploy.audit.model import Lock
from ops.errors import ConfigError, Refused
from tests.deploy.audit.audit_cases import RUSTSEC, folder

NOW = datetime(2019, 12, 1, tzinfo=UTC)
LOCK = Lock(Path("Cargo.lock"), "Rust", Path())
CARGO_LOCK = """\
version = 3

[[package]]
name = "http"
version = "0.1.19"
source = "registry+https://github.com/rust-lang/crates.io-index"
checksum = "d7e06e336150b178206af098a055e3621e8336027e2b4d126bda0bc64824baaf"

[[package]]
name = "it"
version = "0.1.0"
dependencies = ["http"]
"""
IGNORE = '[[ignore]]\nid = "CVE-2019-25008"\nreason = "no header comes from outside"\nexpires = 2020-01-31\n'
needs_cargo_audit = pytest.mark.skipif(not programs.which("cargo-audit"), reason="cargo-audit is not installed")

DOCUMENT = {
    "database": {"advisory-count": 1},
    "lockfile": {"dependency-count": 2},
    "settings": {"target_arch": [], "target_os": [], "severity": None, "ignore": []},
    "vulnerabilities": {
        "found": True,
        "list": [
            {
                "advisory": {"id": "RUSTSEC-2019-0033", "title": "Integer Overflow", "aliases": ["CVE-2019-25008"]},
                "versions": {"patched": [">=0.1.20"], "unaffected": []},
                "package": {"name": "http", "version": "0.1.19"},
            }
        ],
    },
    "warnings": {
        "unmaintained": [
            {"package": {"name": "old", "version": "1.0.0"}, "advisory": {"id": "RUSTSEC-2020-1", "title": "old is unmaintained"}}
        ],
        "yanked": [{"package": {"name": "gone", "version": "2.0.0"}, "advisory": None}],
    },
}


def done(document: Any, error: str = "") -> CompletedProcess[str]:
    said = document if isinstance(document, str) else json.dumps(document)
    return CompletedProcess([], 1, said, error)


def cargo(place: Path, ignores: str = "", lock: str = CARGO_LOCK) -> Path:
    return folder(place, lock, ignores, "Cargo.lock")


@needs_cargo_audit
def test_a_vulnerable_crate_is_found_in_a_folder_of_advisories(tmp_path: Path) -> None:
    report = audit([cargo(tmp_path)], NOW, offline=RUSTSEC)
    assert report.exit_code == 1
    [finding] = report.open
    assert (finding.advisory.id, finding.advisory.version, finding.advisory.fixed) == (
        "RUSTSEC-2019-0033",
        "0.1.19",
        (">=0.1.20",),
    )
    assert finding.fix == f"cd {tmp_path} && cargo update --package http@0.1.19"
    assert report.asked[0].endswith("the newest 15 days old")


@needs_cargo_audit
def test_a_fixed_crate_is_clean(tmp_path: Path) -> None:
    report = audit([cargo(tmp_path, lock=CARGO_LOCK.replace("0.1.19", "0.1.21"))], NOW, offline=RUSTSEC.parent)
    assert (report.exit_code, report.gaps, [packages for _, packages in report.audited]) == (0, (), [2])


@needs_cargo_audit
def test_an_ignored_crate_no_longer_fails(tmp_path: Path) -> None:
    assert audit([cargo(tmp_path, IGNORE)], NOW, offline=RUSTSEC).exit_code == 0


@needs_cargo_audit
def test_settings_of_the_tool_beside_the_lock_hide_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".cargo").mkdir()
    (tmp_path / ".cargo" / "audit.toml").write_text('[advisories]\nignore = ["RUSTSEC-2019-0033"]\n')
    monkeypatch.chdir(tmp_path)
    assert audit([cargo(tmp_path)], NOW, offline=RUSTSEC).exit_code == 1


@needs_cargo_audit
def test_a_lock_that_cannot_be_read_is_not_audited(tmp_path: Path) -> None:
    report = audit([cargo(tmp_path, lock="no lock")], NOW, offline=RUSTSEC)
    assert report.exit_code == 3
    assert report.gaps[0].why.startswith("error: ")


def test_what_the_tool_says_becomes_advisories_and_warnings() -> None:
    answer = cargo_audit.read(done(DOCUMENT), LOCK)
    assert [(one.package, one.version, one.id) for one in answer.advisories] == [("http", "0.1.19", "RUSTSEC-2019-0033")]
    assert answer.warnings == ("old 1.0.0 is unmaintained: RUSTSEC-2020-1 old is unmaintained", "gone 2.0.0 is yanked")


def test_no_answer_is_not_clean() -> None:
    with pytest.raises(Refused) as refused:
        cargo_audit.read(
            done("", "error: couldn't fetch advisory database: git operation failed\nCaused by:\n  -> no route"), LOCK
        )
    assert refused.value.why == "error: couldn't fetch advisory database: git operation failed"


def test_a_database_without_advisories_is_not_clean() -> None:
    with pytest.raises(Refused, match="knows no advisory"):
        cargo_audit.read(done(DOCUMENT | {"database": {"advisory-count": 0}}), LOCK)


@pytest.mark.parametrize("hidden", [{"ignore": ["RUSTSEC-2019-0033"]}, {"severity": "high"}, {"target_os": ["windows"]}])
def test_findings_that_the_tool_itself_hides_are_an_error(hidden: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"hides findings by {next(iter(hidden))}"):
        cargo_audit.read(done(DOCUMENT | {"settings": hidden}), LOCK)


def test_a_folder_without_rust_advisories_is_an_error(tmp_path: Path) -> None:
    report = audit([cargo(tmp_path)], NOW, offline=tmp_path)
    assert (report.exit_code, report.gaps[0].what) == (3, f"{tmp_path} holds no advisories about Rust crates")


def test_the_age_of_advisories_is_that_of_the_newest(tmp_path: Path) -> None:
    assert f"{cargo_audit.newest(RUSTSEC):%Y-%m-%d}" == "2019-11-16"
    with pytest.raises(Refused, match="when it was written"):
        cargo_audit.newest(tmp_path)


def test_the_public_database_is_asked_unless_there_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "cargo-audit"
    tool.write_text(f"#!/bin/sh\necho \"$@\" > {tmp_path}/asked\ncat <<'END'\n{json.dumps(DOCUMENT)}\nEND\n")
    tool.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    report = audit([cargo(tmp_path)], NOW)
    assert (report.exit_code, report.asked) == (1, (cargo_audit.DATABASE,))
    assert (tmp_path / "asked").read_text() == f"audit --json --no-yanked --file {tmp_path}/Cargo.lock\n"
    audit([tmp_path], NOW, offline=RUSTSEC)
    assert (tmp_path / "asked").read_text().endswith(f"--no-fetch --stale --db {RUSTSEC}\n")


def test_the_tool_that_is_missing_is_said_with_what_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "which", lambda _name: None)
    report = audit([cargo(tmp_path)], NOW)
    assert (report.exit_code, report.gaps[0].fix) == (3, "cargo install cargo-audit --locked")

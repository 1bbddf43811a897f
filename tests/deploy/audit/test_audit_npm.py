"""Node locks, asked about by the real npm where it is installed, at a registry on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from deploy import programs
from deploy.audit import npm_audit
from deploy.audit.auditing import audit
from deploy.audit.model import Lock
from ops.errors import Refused
from tests.deploy.audit.audit_cases import NOW, folder, service

needs_npm = pytest.mark.skipif(not programs.which("npm"), reason="npm is not installed")

BULK = "/-/npm/v1/security/advisories/bulk"
ADVISORY = {
    "id": 1106913,
    "url": "https://github.com/advisories/GHSA-35jh-r3h4-6jhm",
    "title": "Command Injection in lodash",
    "severity": "high",
    "vulnerable_versions": "<4.17.21",
    "cwe": ["CWE-77", "CWE-94"],
    "cvss": {"score": 7.2, "vectorString": "CVSS:3.1/AV:N/AC:L/PR:H/UI:N/S:U/C:H/I:H/A:H"},
}
PACKAGE = {"name": "lodash", "dist-tags": {"latest": "4.17.21"}, "versions": {
    version: {"name": "lodash", "version": version, "dist": {"tarball": "http://127.0.0.1/lodash.tgz"}}
    for version in ("4.17.15", "4.17.21")
}}  # fmt: skip
KNOWING = {BULK: (200, json.dumps({"lodash": [ADVISORY]})), "/lodash": (200, json.dumps(PACKAGE))}


def lock(version: str) -> str:
    packages = {"": {"name": "it", "version": "1.0.0", "dependencies": {"lodash": version}},
                "node_modules/lodash": {"version": version, "dev": True}}  # fmt: skip
    return json.dumps({"name": "it", "version": "1.0.0", "lockfileVersion": 3, "requires": True, "packages": packages})


def project(place: Path, version: str = "4.17.15", ignores: str = "") -> Path:
    (place / "package.json").write_text(json.dumps({"name": "it", "version": "1.0.0", "devDependencies": {"lodash": version}}))
    return folder(place, lock(version), ignores, "package-lock.json")


@contextmanager
def registry(monkeypatch: pytest.MonkeyPatch, place: Path, answers: dict[str, tuple[int, str]]) -> Iterator[None]:
    with service(answers) as address:
        monkeypatch.setenv("npm_config_registry", address)
        monkeypatch.setenv("npm_config_fetch_retries", "0")
        monkeypatch.setenv("npm_config_cache", str(place / "cache"))
        yield


@needs_npm
def test_a_known_vulnerable_package_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".npmrc").write_text("offline=true\nomit[]=dev\naudit=false\n")
    with registry(monkeypatch, tmp_path, KNOWING):
        report = audit([project(tmp_path)], NOW)
    assert (report.exit_code, report.gaps) == (1, ())
    [finding] = report.findings
    told = finding.advisory
    assert (told.package, told.version, told.id) == ("lodash", "4.17.15", "GHSA-35jh-r3h4-6jhm")
    assert told.summary == "Command Injection in lodash"
    assert finding.fix == f"cd {tmp_path} && npm audit fix --package-lock-only"


@needs_npm
def test_a_lock_below_another_project_is_audited_and_not_that_projects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project(tmp_path, "4.17.21")
    below = tmp_path / "below"
    below.mkdir()
    (below / "package-lock.json").write_text(lock("4.17.15"))
    with registry(monkeypatch, tmp_path, KNOWING):
        report = audit([below], NOW)
    assert (report.exit_code, [one.advisory.version for one in report.findings]) == (1, ["4.17.15"])


@needs_npm
def test_the_fixed_package_is_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with registry(monkeypatch, tmp_path, KNOWING):
        report = audit([project(tmp_path, "4.17.21")], NOW)
    assert (report.exit_code, report.gaps, [packages for _, packages in report.audited]) == (0, (), [1])


@needs_npm
@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (405, "", "npm audit did not audit"),
        (200, "<html>please sign in</html>", "npm audit did not audit"),
        (200, "{}", "knows nothing of lodash 4.17.15"),
    ],
)
def test_a_registry_that_does_not_answer_is_never_clean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, body: str, said: str
) -> None:
    with registry(monkeypatch, tmp_path, {BULK: (status, body)}):
        report = audit([project(tmp_path, "4.17.21")], NOW)
    assert (report.exit_code, report.audited) == (3, ())
    assert said in report.gaps[0].what


def test_there_is_no_offline_mode_and_that_is_said(tmp_path: Path) -> None:
    report = audit([project(tmp_path)], NOW, offline=tmp_path)
    assert report.exit_code == 3
    assert report.gaps[0].what.endswith("package-lock.json cannot be audited offline")


def read(place: Path, document: Any, error: str = "") -> list[tuple[str, str, str, tuple[str, ...]]]:
    said = document if isinstance(document, str) else json.dumps(document)
    ours = Lock(project(place) / "package-lock.json", "Node", place)
    answer = npm_audit.read(CompletedProcess([], 1, said, error), ours)
    return [(one.package, one.version, one.id, one.fixed) for one in answer.advisories]


def told(fix: object, *via: object) -> dict[str, Any]:
    entry = {"name": "lodash", "nodes": ["node_modules/lodash"], "via": list(via), "fixAvailable": fix}
    return {"vulnerabilities": {"lodash": entry}, "metadata": {"dependencies": {"total": 1}}}


@pytest.mark.parametrize(
    ("fix", "fixed"),
    [(True, ("a newer release in range",)), (False, ()), ({"name": "it", "version": "2.0.0"}, ("it 2.0.0",))],
)
def test_what_npm_says_becomes_advisories(tmp_path: Path, fix: object, fixed: tuple[str, ...]) -> None:
    assert read(tmp_path, told(fix, ADVISORY, "minimist")) == [("lodash", "4.17.15", "GHSA-35jh-r3h4-6jhm", fixed)]


def test_a_package_that_only_depends_on_a_vulnerable_one_is_told_there(tmp_path: Path) -> None:
    assert read(tmp_path, told(True, "minimist")) == []


@pytest.mark.parametrize(
    ("said", "error", "why"),
    [
        ({"message": "405 Method Not Allowed", "error": {"summary": ""}}, "", "405 Method Not Allowed"),
        ({"error": {"code": "ENOLOCK", "summary": "This command requires an existing lockfile."}}, "", "requires an existing"),
        ("", "npm error code EUSAGE\nnpm error it is Tuesday", "it is Tuesday"),
        ("[]", "", r"\[\]"),
    ],
)
def test_an_error_is_told_in_the_words_of_npm(tmp_path: Path, said: object, error: str, why: str) -> None:
    with pytest.raises(Refused, match=f"did not audit .*package-lock.json\n  cause: .*{why}"):
        read(tmp_path, said, error)


def test_npm_missing_is_said_with_what_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "which", lambda _name: None)
    report = audit([project(tmp_path)], NOW)
    assert (report.exit_code, report.gaps[0].what) == (3, "npm is not installed")

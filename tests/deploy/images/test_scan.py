"""What speaks against an image: secrets, and vulnerabilities that an update mends; what is ignored has a reason and an end."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from deploy.audit.model import Advisory
from deploy.images.scan import Report, scan, with_vulnerabilities
from deploy.images.vulnerabilities import Vulnerability, ask, parse_grype, parse_trivy, scanner, vulnerabilities
from ops.config_problems import ConfigProblems
from ops.errors import Refused
from tests.deploy.images.made import image

TODAY = date(2026, 3, 1)
ENV = b"SECRET_KEY=hunter2hunter2\n"
IGNORE = '[[ignore]]\nid = "{id}"\nreason = "a sample for the manual"\nexpires = {expires}\n'
# After the documented reports: https://trivy.dev/latest/docs/configuration/reporting/ and grype's `-o json`
TRIVY: dict[str, Any] = {
    "SchemaVersion": 2, "ArtifactName": "tidegate/shop:1.4.0", "ArtifactType": "container_image",
    "Results": [
        {"Target": "shop (debian 13.8)", "Class": "os-pkgs", "Type": "debian", "Vulnerabilities": [
            {"VulnerabilityID": "CVE-2026-0001", "PkgName": "zlib1g", "InstalledVersion": "1:1.3", "Severity": "LOW",
             "Status": "affected", "Title": "zlib: a flaw"},
            {"VulnerabilityID": "CVE-2026-0002", "VendorIDs": ["DSA-6000-1"], "PkgName": "libssl3t64", "InstalledVersion": "3.5.0-1",
             "FixedVersion": "3.5.1-1, 3.6.0-1", "Severity": "CRITICAL", "Title": "openssl: a flaw"},
        ]},
        {"Target": "Python", "Class": "lang-pkgs", "Type": "python-pkg"},
    ],
}  # fmt: skip
GRYPE: dict[str, Any] = {
    "matches": [
        {"vulnerability": {"id": "GHSA-aaaa-bbbb-cccc", "severity": "High", "description": "a flaw",
                           "fix": {"versions": ["0.47.2"], "state": "fixed"}},
         "relatedVulnerabilities": [{"id": "CVE-2026-0003"}],
         "artifact": {"name": "starlette", "version": "0.40.0", "type": "python"}},
        {"vulnerability": {"id": "CVE-2026-0004", "severity": "Negligible", "fix": {"versions": [], "state": "wont-fix"}},
         "artifact": {"name": "libc6", "version": "2.41-12", "type": "deb"}},
    ],
    "descriptor": {"name": "grype"},
}  # fmt: skip
MENDED = Vulnerability(Advisory("starlette", "0.40.0", "GHSA-aaaa-bbbb-cccc", ("CVE-2026-0003",), ("0.47.2",), "a flaw"), "high")
WAITING = Vulnerability(Advisory("libc6", "2.41-12", "CVE-2026-0004", (), (), ""), "negligible")


def scanned(root: Path, *found: Vulnerability, files: dict[str, object] | None = None) -> Report:
    report = scan(image(files or {}), root, TODAY, 0)
    return with_vulnerabilities(report, root, TODAY, lambda _: found) if found else report


def ignoring(root: Path, id: str, expires: str = "2026-06-01", name: str = "scan.toml") -> None:
    (root / name).write_text(IGNORE.format(id=id, expires=expires))


def test_an_image_is_clean_or_not_only_when_vulnerabilities_were_looked_for(tmp_path: Path) -> None:
    assert [scanned(tmp_path, *found).document()["clean"] for found in ((), (WAITING,), (MENDED,))] == [None, True, False]
    assert scanned(tmp_path, files={"app/.env": ENV}).document()["clean"] is False


def test_what_was_not_looked_for_is_said(tmp_path: Path) -> None:
    report = scanned(tmp_path, files={"var/lib/dpkg/status.d/tzdata": b"Package: tzdata\nVersion: 1\n"})
    assert (report.exit_code, report.document()["packages"]) == (0, 1)
    assert report.document()["vulnerabilities"] is None
    assert report.notes == ("known vulnerabilities were not looked for",)


def test_packages_that_leave_no_record_are_said_not_to_be_seen(tmp_path: Path) -> None:
    assert "what is linked into a program is not seen" in scanned(tmp_path, WAITING).notes[0]


def test_a_secret_speaks_against_an_image(tmp_path: Path) -> None:
    report = scanned(tmp_path, files={"app/.env": ENV})
    assert report.exit_code == 1
    (told,) = report.document()["secrets"]
    assert (told["path"], told["line"], told["layer"]) == ("app/.env", 1, 1)
    assert "hunter2" not in json.dumps(report.document())


def test_a_secret_is_ignored_by_its_path_for_a_reason_until_a_day(tmp_path: Path) -> None:
    ignoring(tmp_path, "app/.env")
    report = scanned(tmp_path, files={"app/.env": ENV})
    assert report.exit_code == 0
    (told,) = report.document()["ignored"]
    assert (told["path"], told["reason"], told["until"]) == ("app/.env", "a sample for the manual", "2026-06-01")


@pytest.mark.parametrize("name", ["scan.toml", "audit.toml"])
def test_an_ignore_that_has_expired_is_an_error(tmp_path: Path, name: str) -> None:
    ignoring(tmp_path, "CVE-2026-0003", "2026-02-28", name)
    with pytest.raises(ConfigProblems, match="has expired"):
        scanned(tmp_path, MENDED)


def test_what_an_update_mends_speaks_against_an_image_and_what_none_mends_does_not(tmp_path: Path) -> None:
    assert scanned(tmp_path, MENDED, WAITING).exit_code == 1
    assert scanned(tmp_path, WAITING).exit_code == 0


@pytest.mark.parametrize("id", ["GHSA-aaaa-bbbb-cccc", "CVE-2026-0003"])
@pytest.mark.parametrize("name", ["scan.toml", "audit.toml"])
def test_a_vulnerability_is_ignored_under_any_of_its_names(tmp_path: Path, id: str, name: str) -> None:
    ignoring(tmp_path, id, name=name)
    report = scanned(tmp_path, MENDED)
    assert report.exit_code == 0
    assert report.document()["vulnerabilities"][0]["until"] == "2026-06-01"


def test_an_ignore_about_a_package_hides_no_secret(tmp_path: Path) -> None:
    said = IGNORE.format(id="app/.env", expires="2026-06-01")
    (tmp_path / "scan.toml").write_text(f'{said}\npackage = "requests"\n')
    assert scanned(tmp_path, files={"app/.env": ENV}).exit_code == 1


def test_an_ignore_of_ours_that_is_about_nothing_any_more_is_told_once_all_was_looked_for(tmp_path: Path) -> None:
    said = (IGNORE.format(id=id, expires="2026-06-01") for id in ("app/.env", "gone/.env", "CVE-2026-0003", "CVE-2020-9"))
    (tmp_path / "scan.toml").write_text("\n".join(said))
    ignoring(tmp_path, "CVE-2020-8", name="audit.toml")  # about locks: not to be judged by an image
    told = [note.partition(": ")[2] for note in scanned(tmp_path, MENDED, files={"app/.env": ENV}).notes if "scan.toml" in note]
    rest = "nothing is found any more that the ignore of {} is about: remove it"
    assert told == [rest.format("gone/.env"), rest.format("CVE-2020-9")]
    assert not any("scan.toml" in note for note in scanned(tmp_path).notes)


def test_an_ignore_of_a_package_covers_it_in_an_image_however_its_name_is_written(tmp_path: Path) -> None:
    (tmp_path / "audit.toml").write_text(IGNORE.format(id="CVE-2026-0003", expires="2026-06-01") + 'package = "Starlette"\n')
    assert scanned(tmp_path, MENDED).exit_code == 0


def test_files_that_were_not_read_whole_are_said(tmp_path: Path) -> None:
    report = Report("shop:1", "id", (), (), (), "", ("big",), ())
    assert report.notes[0].startswith("of big only the first")


def test_trivy_is_understood() -> None:
    first, second = parse_trivy(TRIVY)
    assert (first.advisory.id, first.severity, first.advisory.fixed) == ("CVE-2026-0002", "critical", ("3.5.1-1", "3.6.0-1"))
    assert first.advisory.names == {"CVE-2026-0002", "DSA-6000-1"}
    assert (second.advisory.package, second.mendable) == ("zlib1g", False)


def test_grype_is_understood() -> None:
    assert parse_grype(GRYPE) == [MENDED, WAITING]


def test_severities_nobody_has_heard_of_come_last() -> None:
    strange = {"matches": [{**GRYPE["matches"][0], "vulnerability": {"id": "X-1", "severity": "Odd"}}, *GRYPE["matches"]]}
    assert [one.severity for one in parse_grype(strange)] == ["high", "negligible", "odd"]


def program(folder: Path, name: str, script: str) -> None:
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_the_scanner_that_is_installed_is_asked_about_the_image(programs: Path) -> None:
    assert scanner() is None
    (programs / "answer").write_text(json.dumps(GRYPE))
    program(programs, "grype", f'test "$1" = docker:shop:1 && exec /bin/cat {programs}/answer')
    assert scanner() == "grype"
    assert [one.advisory.package for one in ask("shop:1")] == ["starlette", "libc6"]
    program(programs, "trivy", "echo '{\"SchemaVersion\": 2}'")
    assert scanner() == "trivy"
    assert vulnerabilities("trivy", "shop:1") == []


def test_nobody_to_ask_about_vulnerabilities_is_refused_with_a_way_out(programs: Path) -> None:
    with pytest.raises(Refused, match="neither trivy nor grype is installed") as caught:
        ask("shop:1")
    assert "--without-vulnerabilities" in caught.value.fix


def test_ignores_of_the_scanners_themselves_that_lie_around_have_no_say(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".trivyignore").write_text("CVE-2026-0002\n")
    monkeypatch.chdir(tmp_path)
    (programs / "answer").write_text(json.dumps(TRIVY))
    program(programs, "trivy", f"test -e .trivyignore && exit 1; exec /bin/cat {programs}/answer")
    assert len(vulnerabilities("trivy", "shop:1")) == 2


@pytest.mark.parametrize("name", ["grype", "trivy"])
def test_variables_that_hide_findings_are_not_passed_on_and_those_that_lead_to_the_database_are(
    programs: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hiding = (
        "TRIVY_SEVERITY",
        "TRIVY_IGNORE_UNFIXED",
        "TRIVY_IGNOREFILE",
        "TRIVY_CONFIG",
        "GRYPE_ONLY_FIXED",
        "GRYPE_CONFIG",
        "GRYPE_EXCLUDE",
    )
    leading = (
        "TRIVY_CACHE_DIR",
        "TRIVY_DB_REPOSITORY",
        "GRYPE_DB_CACHE_DIR",
        "GRYPE_DB_UPDATE_URL",
        "HTTPS_PROXY",
        "GITHUB_TOKEN",
    )
    for variable in (*hiding, *leading):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    program(programs, name, f'/usr/bin/env > {programs}/told; echo \'{{"SchemaVersion": 2, "matches": []}}\'')
    assert vulnerabilities(name, "shop:1") == []
    told = {line.partition("=")[0] for line in (programs / "told").read_text().splitlines()}
    assert (told & set(hiding), set(leading) - told) == (set(), set())


def test_settings_of_the_home_folder_have_no_say_and_the_image_is_that_of_the_engine(programs: Path) -> None:
    program(programs, "grype", """test "$2" = --config && test "$(/bin/cat "$3")" = "{}" && echo '{"matches": []}'""")
    assert vulnerabilities("grype", "shop:1") == []
    program(programs, "trivy", """test "$2 $3" = "--image-src docker" && echo '{"SchemaVersion": 2}'""")
    assert vulnerabilities("trivy", "shop:1") == []


@pytest.mark.parametrize("name", ["grype", "trivy"])
@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo 'FATAL: database download failed' >&2; exit 1", "database download failed"),
        ("echo 'no JSON'", "not what it documents"),
        ("echo '{}'", "not what it documents"),
        ("echo '[]'", "not what it documents"),
    ],
)
def test_a_scanner_that_cannot_tell_is_an_error_and_never_clean(programs: Path, name: str, script: str, why: str) -> None:
    program(programs, name, script)
    with pytest.raises(Refused, match="cannot tell") as caught:
        vulnerabilities(name, "shop:1")
    assert why in caught.value.why


def test_a_scanner_that_hangs_is_not_waited_for(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.images.vulnerabilities._PATIENCE", 0.2)
    program(programs, "trivy", "exec /bin/sleep 60")
    with pytest.raises(Refused) as caught:
        vulnerabilities("trivy", "shop:1")
    assert "did not end" in caught.value.why

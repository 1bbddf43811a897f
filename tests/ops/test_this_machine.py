"""What local work needs of this machine: packages that lack are installed where we may, else named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ops import this_machine
from ops.errors import Refused
from ops.this_machine import install, known_packages, need
from tests.programs import Programs


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    monkeypatch.setattr(this_machine, "can_install", lambda: True)
    monkeypatch.setattr("ops.this_machine.tempfile.tempdir", str(tmp_path))
    return Programs(tmp_path, monkeypatch)


def test_only_packages_of_programs_that_lack_are_installed_and_nobody_is_asked(programs: Programs) -> None:
    programs.add("apt-get", 'test "$DEBIAN_FRONTEND" = noninteractive || exit 9')
    said: list[str] = []
    need({"sh": "dash", "no-such-program": "two", "none-such-either": "one"}, said.append)
    assert said == ["installing one two on this machine"]
    assert [line.partition("120 ")[2] for line in programs.called] == ["update", "install -y --no-install-recommends one two"]
    need({"sh": "dash"}, said.append)
    assert len(said) == 1


def test_where_we_may_not_install_it_is_said_what_is_needed(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(this_machine, "can_install", lambda: False)
    with pytest.raises(Refused, match="this machine lacks one two") as caught:
        install(["one", "two"], print)
    assert caught.value.fix == "install one two, then run this again"


def test_sources_that_do_not_answer_are_told_by_apts_own_words(programs: Programs) -> None:
    programs.add("apt-get", "echo reading; echo 'E: no route to the mirror' >&2; exit 100")
    with pytest.raises(Refused, match="apt-get update failed") as caught:
        install(["one"], lambda what: None)
    assert caught.value.why == "E: no route to the mirror"
    assert len(programs.called) == 1


def test_it_is_asked_in_english_which_packages_there_are(programs: Programs) -> None:
    programs.add("apt-cache", 'case "$LC_ALL $3" in "C none") echo "Candidate: (none)";; C*) echo "Candidate: 1.2";; esac')
    assert known_packages(["one", "none", "two"]) == ["one", "two"]


def test_packages_are_installed_by_root_and_on_debian_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert not this_machine.can_install()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not this_machine.can_install()


@pytest.mark.parametrize(("ci", "sudo", "may"), [("true", 'shift; exec "$@"', True), ("true", "exit 1", False), ("", "", False)])
def test_who_is_not_root_installs_by_sudo_in_ci_alone_and_without_a_question(
    ci: str, sudo: str, may: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ops.this_machine.tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("CI", ci)
    programs = Programs(tmp_path, monkeypatch)
    programs.add("apt-get", 'test "$DEBIAN_FRONTEND" = noninteractive || exit 9')
    programs.add("sudo", sudo)
    assert this_machine.can_install() is (may and Path("/etc/debian_version").exists())
    assert programs.called == (["sudo -n true"] if ci else [])
    if this_machine.can_install():
        install(["one"], lambda what: None)
        assert len([line for line in programs.called if line.startswith("sudo -n env DEBIAN_FRONTEND")]) == 2
        assert programs.called[-1].endswith("install -y --no-install-recommends one")

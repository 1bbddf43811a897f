"""The files that make a server take backups by itself, what cron's line does in cron's environment, and what is missing."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backup.agent.expire import SCHEDULES
from backup.client import PROGRAM
from backup.schedule import _FACTS, _PUT, Step, parse, programs, removal, steps
from backup.schedule_files import File, for_cron, for_systemd, log_of, minute_of, next_runs, upcoming
from ops.config import App, Backup, Environment, Offsite
from ops.config_models import Notifications

NOW = datetime(2026, 11, 23, 10, 30, tzinfo=UTC)
CRON = {"has_cron": "yes", "cron_runs": "yes", "has_zstd": "yes", "has_whole_python": "yes"}


def line_of(app: str, minute: int = 17) -> str:
    return for_cron(app, minute)[0].text.splitlines()[-1]


def command_of(folder: Path, exits: int = 0) -> str:
    """Return what cron hands to the shell, with a small program in the place of ours and a log in a folder of the test's."""
    program = folder / "backup.py"
    program.write_text(f"import os, sys\nprint(sys.argv[1:], sys.flags.isolated, os.getpriority(os.PRIO_PROCESS, 0), oct(os.umask(0)), flush=True)"
                       f"\nprint('trouble', file=sys.stderr)\nsys.exit({exits})\n")  # fmt: skip
    command = line_of("blog").split(None, 6)[6]
    return command.replace(PROGRAM, str(program)).replace(log_of("blog"), str(folder / "backup.log"))


def as_cron(command: str) -> subprocess.CompletedProcess[str]:
    """Run a command as cron does: with the variables of the file, and no others, by /bin/sh."""
    variables = dict(re.findall(r"(?m)^(\w+)=(.*)$", for_cron("blog", 17)[0].text))
    words = [f"{name}={value}" for name, value in variables.items() if name != "MAILTO"]
    return subprocess.run(["env", "-i", "HOME=/root", "LOGNAME=root", *words, variables["SHELL"], "-c", command],
                          capture_output=True, text=True, cwd="/")  # fmt: skip


def test_crons_file_has_a_name_and_a_form_that_cron_reads() -> None:
    (file,) = for_cron("my-blog-2", 5)
    assert re.fullmatch(r"/etc/cron\.d/[A-Za-z0-9_-]+", file.path)
    assert file.text.endswith("\n")
    assert "%" not in file.text  # a new line, for cron
    (job,) = [one for one in file.text.splitlines() if re.match(r"[0-9*]", one)]
    assert job.split()[:6] == ["5", "*", "*", "*", "*", "root"]
    assert len(job) < 999  # cron's longest line


def test_the_agent_knows_where_schedules_are() -> None:
    paths = {one.path for one in (*for_cron("blog", 0), *for_systemd("blog", 0))}
    assert {path.format(app="blog") for path in SCHEDULES} < paths


def test_the_line_works_in_crons_empty_environment(tmp_path: Path) -> None:
    done = as_cron(command_of(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    when, arguments, trouble = (tmp_path / "backup.log").read_text().splitlines()
    assert datetime.fromisoformat(when).tzinfo == UTC
    assert arguments == f"['scheduled', '--app', 'blog'] 1 {min(19, os.getpriority(os.PRIO_PROCESS, 0) + 10)} 0o77"
    assert trouble == "trouble"
    assert (tmp_path / "backup.log").stat().st_mode & 0o777 == 0o600


def test_the_line_ends_as_the_program_does(tmp_path: Path) -> None:
    assert as_cron(command_of(tmp_path, exits=6)).returncode == 6


def test_the_log_is_added_to_and_never_grows_beyond_two_files(tmp_path: Path) -> None:
    command, log = command_of(tmp_path), tmp_path / "backup.log"
    for _ in range(2):
        as_cron(command)
    assert log.read_text().count("trouble") == 2
    log.write_text("x" * 1_100_000)
    for _ in range(2):
        as_cron(command)
    assert log.read_text().count("trouble") == 2
    assert sorted(one.name for one in tmp_path.glob("backup.log*")) == ["backup.log", "backup.log.1"]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed: apt-get install systemd")
def test_systemd_finds_nothing_wrong_with_service_and_timer(tmp_path: Path) -> None:
    program = tmp_path / "python3"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    paths = []
    for file in for_systemd("blog", 7):
        paths.append(tmp_path / Path(file.path).name)
        paths[-1].write_text(file.text.replace("/usr/bin/python3", str(program)))
    (tmp_path / "docker.service").write_text("[Service]\nExecStart=/bin/true\n")
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", *paths], capture_output=True, text=True,
                          env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"})  # fmt: skip
    ours = [line for line in done.stderr.splitlines() if "tidegate" in line]
    assert (done.returncode, ours) == (0, []), done.stderr
    calendar = re.search(r"OnCalendar=(.*)", for_systemd("blog", 7)[1].text)
    assert calendar
    said = subprocess.run(["systemd-analyze", "calendar", calendar[1]], capture_output=True, text=True, check=True).stdout
    assert "*-*-* *:07:00 UTC" in said


def test_the_timer_makes_up_for_what_was_missed_and_the_service_may_reach_engine_and_volumes() -> None:
    service, timer = for_systemd("blog", 7)
    assert "Persistent=true" in timer.text
    assert f"ExecStart=/usr/bin/python3 -I {PROGRAM} scheduled --app blog\n" in service.text
    for wrong in ("PrivateTmp", "ProtectHome", "PrivateDevices", "ProtectSystem=strict", "PrivateNetwork"):
        assert wrong not in service.text


def test_servers_and_apps_do_not_all_begin_at_the_same_minute() -> None:
    minutes = {minute_of(app, f"web-{number}") for app in ("blog", "shop") for number in range(50)}
    assert minutes <= set(range(60))
    assert len(minutes) > 40
    assert minute_of("blog", "web-1") == minute_of("blog", "web-1")


@given(st.integers(0, 59), st.integers(0, 23), st.integers(0, 59), st.integers(0, 2**31))
def test_the_next_runs_are_the_first_looks_at_or_after_the_time_of_day(minute: int, hour: int, past: int, seconds: int) -> None:
    now = datetime.fromtimestamp(seconds, UTC)
    runs = upcoming(minute, f"{hour:02}:{past:02}", now)
    assert now < runs[0] <= now + timedelta(days=1)
    assert [later - earlier for earlier, later in pairwise(runs)] == [timedelta(days=1)] * 2
    for run in runs:
        late = (run - run.replace(hour=hour, minute=past, second=0, microsecond=0)) % timedelta(days=1)
        assert run.minute == minute
        assert late < timedelta(hours=1)


def test_the_look_just_after_midnight_is_not_passed_over() -> None:
    assert next(next_runs(10, "23:50", NOW.replace(hour=0, minute=5))) == NOW.replace(hour=0, minute=10)


def env_of(urls: tuple[str, ...] = (), **changes: object) -> Environment:
    backup = Backup.model_validate({"sources": {"posts": {"kind": "directory", "path": "/srv/posts"}}, **changes})
    app = App(name="blog", port=3000, backup=backup)
    return Environment.model_validate(
        {"name": "test", "app": app, "hosts": ("web-1",), "domains": ("a.example",), "notifications": Notifications(urls=urls)}
    )


def test_only_what_the_configuration_needs_is_asked_for() -> None:
    assert programs(env_of()) == ("zstd", "whole_python")
    assert programs(env_of(compression="gzip")) == ("whole_python",)
    everything = env_of(
        ("SLACK",), compression="xz", recipients=["age1" + "q" * 58], offsite=Offsite(repository="sftp:a@b:/c", password="P")
    )
    assert programs(everything) == ("xz", "age", "restic", "ssh", "apprise", "certificates", "whole_python")
    assert "certificates" in programs(env_of(ping="PING"))
    assert "ssh" not in programs(env_of(offsite=Offsite(repository="s3:x/y", password="P")))


def done(found: tuple[Step, ...]) -> list[str]:
    return [one.what for one in found]


def present(files: tuple[File, ...], mode: str = "644 0") -> dict[str, str]:
    return {f"file {one.path}": f"{mode} {one.digest}" for one in files}


def test_a_bare_server_gets_cron_and_what_is_needed() -> None:
    assert done(tuple(steps({}, "blog", 17, ("zstd", "whole_python")))) == [
        "install cron, python3, zstd", "write /etc/cron.d/tidegate-blog", "start cron",
    ]  # fmt: skip


def test_a_server_with_systemd_gets_a_timer_and_no_cron() -> None:
    assert done(tuple(steps({"systemd": "yes"}, "blog", 17, ()))) == [
        "write /etc/systemd/system/tidegate-backup-blog.service", "write /etc/systemd/system/tidegate-backup-blog.timer",
        "start tidegate-backup-blog.timer",
    ]  # fmt: skip


def test_what_is_there_is_not_done_again() -> None:
    assert not tuple(steps(CRON | present(for_cron("blog", 17)), "blog", 17, ("zstd",)))
    assert not tuple(steps({"systemd": "yes", "timer_runs": "yes"} | present(for_systemd("blog", 17)), "blog", 17, ()))


@pytest.mark.parametrize("facts", [present(for_cron("blog", 17), "666 0"), present(for_cron("blog", 17), "644 1000"), present(for_cron("blog", 18))])  # fmt: skip
def test_a_file_that_others_may_write_to_or_that_is_not_as_wanted_is_written_again(facts: dict[str, str]) -> None:
    assert done(tuple(steps(CRON | facts, "blog", 17, ()))) == ["write /etc/cron.d/tidegate-blog"]


def test_there_is_never_more_than_one_schedule() -> None:
    facts = {"systemd": "yes", "timer_runs": "yes"} | present(for_cron("blog", 17)) | present(for_systemd("blog", 17))
    assert done(tuple(steps(facts, "blog", 17, ()))) == ["remove /etc/cron.d/tidegate-blog"]
    found = tuple(steps(CRON | present(for_systemd("blog", 17)), "blog", 17, ()))
    assert [one.partition(" ")[0] for one in done(found)] == ["remove", "write"]


def test_removing_takes_away_every_schedule_and_nothing_of_another_app() -> None:
    facts = {"systemd": "yes", "timer_runs": "yes"} | present(for_cron("blog", 17)) | present(for_systemd("blog", 17))
    found = tuple(removal(facts, "blog"))
    assert done(found)[0] == "stop tidegate-backup-blog.timer"
    assert all(one.path in str(found[1].command) for one in (*for_cron("blog", 0), *for_systemd("blog", 0)))
    assert not tuple(removal(present(for_cron("shop", 17)), "blog"))


@pytest.mark.parametrize("shell", ["dash", "bash", "dash -u", "dash -e"])
def test_the_facts_are_found_by_any_posix_shell(shell: str, tmp_path: Path) -> None:
    if not shutil.which(shell.partition(" ")[0]):
        pytest.skip(f"no {shell}")
    file = tmp_path / "with space"
    file.write_text("content\n")
    file.chmod(0o640)
    done = subprocess.run([*shell.split(), "-c", _FACTS, "sh", "unit", str(file), "/nowhere"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    facts = parse(done.stdout.rpartition("tidegate-schedule\n")[2])
    assert facts[f"file {file}"] == f"640 {os.getuid()} {hashlib.sha256(file.read_bytes()).hexdigest()}"
    assert "file /nowhere" not in facts


def test_a_file_is_put_into_its_place_whole_with_its_mode(tmp_path: Path) -> None:
    target = tmp_path / "folder with space" / "target"
    target.parent.mkdir()
    text = "a 'quoted' $(id) `id` %s \\n line\n\nlast\n"
    subprocess.run(["sh", "-c", f"umask 077; {_PUT}", "sh", target, text], check=True)
    assert target.read_text() == text
    assert target.stat().st_mode & 0o777 == 0o644
    failed = subprocess.run(["sh", "-c", _PUT, "sh", tmp_path / "nowhere" / "target", text], capture_output=True)
    assert failed.returncode
    assert [one.name for one in target.parent.iterdir()] == ["target"]

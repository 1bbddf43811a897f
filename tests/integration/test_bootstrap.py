"""A bare Debian server, made ready over SSH with apt, and host keys that are only trusted when somebody says so."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deploy.sandbox import Sandbox
from tests.integration.project import App, Server, assert_same, shaky_configuration

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory, root: object, tag: str) -> Iterator[App]:
    """A project with one server that has sshd and sudo, and whose host key is not known yet."""
    folder = tmp_path_factory.mktemp("bare")
    sandbox = Sandbox(folder, "fresh", target="bare")
    (folder / "apps").symlink_to(f"{root}/apps")
    try:
        servers = [Server(known) for known in sandbox.up(1, print)]
        sandbox.known_hosts.unlink()
        configuration = shaky_configuration(f"tide-{tag}") | {
            "environments": {"fresh": {"domain": "tide.localhost"}, "sandbox": {"domain": "tide.localhost"}}
        }
        yield App(folder, servers, configuration, "ops.toml")
    finally:
        sandbox.down(print)


def findings(app: App, code: int) -> dict[str, tuple[bool | None, str]]:
    return {
        one["what"]: (one["ok"], one["found"]) for one in app.inv("server.check", "-e", "fresh", "--json", code=code).document
    }


def state(app: App) -> list[str]:
    """Return packages, the engine's process, and files with the time of their last change."""
    script = "dpkg -l; cat /run/docker.pid; find /srv/tidegate /etc/docker -printf '%p %m %U %T@\\n' 2>/dev/null | sort"
    return [server.root(script) for server in app.servers]


def test_an_unknown_host_key_is_refused_until_it_is_trusted(bare: App) -> None:
    for command in ("server.bootstrap", "deploy"):
        said = bare.inv(command, "-e", "fresh", code=3).said
        assert "host key is not trusted" in said
        assert "server.trust" in said
    assert "host key is not trusted" in findings(bare, 3)["reachable"][1]
    assert "not trusted, nothing was added" in bare.inv("server.trust", "-e", "fresh", code=3).said
    said = bare.inv("server.trust", "-e", "fresh", "--yes").said
    assert "SHA256:" in said
    assert "trusted already" in bare.inv("server.trust", "-e", "fresh").said


def test_a_bare_server_is_made_ready_once(bare: App) -> None:
    assert "no python3 yet" in findings(bare, 3)["reachable"][1]
    done = bare.inv("server.bootstrap", "-e", "fresh", timeout=400)
    assert "install" in done.said
    assert all(ok is not False for ok, _ in findings(bare, 0).values())
    before = state(bare)
    again = bare.inv("server.bootstrap", "-e", "fresh")
    assert "packages, engine and folders are there" in again.said
    assert_same(before, state(bare))
    print(f"bootstrap {done.seconds:.1f} s, again {again.seconds:.1f} s")


def test_the_server_that_was_made_ready_takes_a_deploy(bare: App) -> None:
    bare.inv("deploy", "-e", "fresh")
    assert len(set(bare.serving())) == 1


def test_a_host_key_that_changed_is_refused(bare: App) -> None:
    known = Sandbox(bare.root, "fresh").known_hosts
    honest = known.read_text()
    other = (bare.root / ".tidegate/fresh/id_ed25519.pub").read_text().split()[1]
    known.write_text(" ".join([*honest.split()[:2], other]) + "\n")
    try:
        before = state(bare)
        for command in ("deploy", "server.bootstrap"):
            assert "host key" in bare.inv(command, "-e", "fresh", code=3).said
        assert_same(before, state(bare))
    finally:
        known.write_text(honest)

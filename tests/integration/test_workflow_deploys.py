"""The workflow deploy-api on real servers: built once, promoted as it is, and gone on with after a lost runner.

Staging is the first server and production the second; the runner is a container with Debian's packages, a key of its own in
secrets, and nothing that this machine knows of the servers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.sandbox import Sandbox
from ops.this_machine import local_client
from tests.integration.project import Server
from tests.workflows.machines import Container, container
from tests.workflows.runner import REPOSITORY, Done, Forge, Run, commit, snapshot

pytestmark = [pytest.mark.integration, pytest.mark.slow]
DOMAINS = {"staging": "staging.flow.localhost", "production": "flow.localhost"}


@dataclass
class Shop:
    """An app's repository, the forge that it is on, and its servers."""

    name: str
    forge: Forge
    servers: dict[str, Server]
    secrets: dict[str, str]

    @property
    def repository(self) -> Path:
        """Where it is."""
        return self.forge.repositories[REPOSITORY]

    def run(self, environment: str, *, dies_at: str = "", **inputs: object) -> tuple[Run, Done]:
        """Run deploy-api by hand, each job on a runner of its own; the one that deploys can die at a line that it prints."""
        run = Run(self.forge, "deploy-api", secrets=self.secrets, inputs={"environment": environment, **inputs})
        done = Done("skipped")
        for name in ("image", "deploy"):
            with container(self.forge.folder) as machine:
                run.on_line = _death(machine, dies_at) if name == "deploy" and dies_at else lambda _: None
                done = run.job(name, machine)
        run.close()
        return run, done

    def image_on(self, environment: str) -> str:
        """Return which image serves an environment."""
        container_id = self.servers[environment].running(self.name)[0]
        return self.servers[environment].root(f"docker inspect -f '{{{{.Image}}}}' {container_id}").strip()

    def forget_image(self, version: str) -> None:
        """Remove the image from this machine's engine: each job of a hosted runner begins without."""
        local_client().api.remove_image(f"tidegate/{self.name}:{version}", force=True)

    def journal(self, environment: str) -> list[dict[str, object]]:
        """Return what its journal says."""
        text = self.servers[environment].root(f"cat /srv/tidegate/{self.name}/journal.jsonl")
        return [json.loads(line) for line in text.splitlines()]


def _death(machine: Container, at: str) -> Callable[[str], None]:
    def on_line(line: str) -> None:
        if at in line:
            machine.kill()

    return on_line


@pytest.fixture(scope="module")
def shop(root: Path, servers: list[Server], tag: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("forge")
    by_name = dict(zip(DOMAINS, servers, strict=True))
    name = f"flow-{tag}"

    def configure(repository: Path) -> None:
        text = (repository / "ops.toml").read_text().replace('name = "blog"', f'name = "{name}"', 1)
        (repository / "ops.toml").write_text(text + "".join(_environment(*one) for one in by_name.items()))

    forge = Forge(folder, {REPOSITORY: snapshot(folder / "repository", configure)})
    sandbox = Sandbox(root)
    secrets = {"SSH_KEY": sandbox.identity.read_text(), "KNOWN_HOSTS": sandbox.known_hosts.read_text()}
    yield Shop(name, forge, by_name, secrets)
    for server in servers:
        server.root(f"docker ps -aq --filter label=dev.tidegate.app={name} | xargs -r docker rm -f")


def _environment(name: str, server: Server) -> str:
    known = server.known
    host = f'{{ address = "{known.address}", port = {known.ssh_port}, user = "deploy", url = "{known.url}" }}'
    asks = "approve = true\n" if name == "production" else ""
    return f'\n[environments.{name}]\ndomain = "{DOMAINS[name]}"\nhosts = [{host}]\n{asks}'


def test_one_image_goes_to_staging_and_from_there_to_production(shop: Shop) -> None:
    first, deployed = shop.run("staging", version="1.0.0")
    assert deployed.result == "success", deployed.log
    assert "1.0.0 → staging: done" in deployed.summary.replace("\\", "")
    assert re.search(r"\| start the new release \| [\d.]+ s \|", deployed.summary)
    assert shop.servers["staging"].get(DOMAINS["staging"], "/health")[0] == 200
    assert shop.secrets["SSH_KEY"].splitlines()[1] not in deployed.log

    shop.forget_image("1.0.0")
    (shop.repository / "example/blog/later.py").write_text("LATER = True\n")
    commit(shop.repository, "what staging has not seen")

    _, refused = shop.run("production", approved=True)
    assert refused.result == "failure"
    assert "name the run that built it" in refused.log

    _, unasked = shop.run("production", run=first.number)
    assert unasked.result == "failure"
    assert "no terminal to ask on: give --yes to agree" in unasked.log
    assert "production: declined" in unasked.summary

    _, promoted = shop.run("production", run=first.number, approved=True)
    assert promoted.result == "success", promoted.log
    assert f"built by https://github.com/{REPOSITORY}/actions/runs/{first.number}" in promoted.log
    assert shop.image_on("production") == shop.image_on("staging")
    assert shop.servers["production"].get(DOMAINS["production"], "/health")[0] == 200


def test_a_run_that_nobody_knows_or_that_failed_deploys_nothing(shop: Shop) -> None:
    failed = Run(shop.forge, "deploy-api")
    failed.jobs["deploy"] = Done("failure")
    failed.close()
    for number in ("9999", failed.number):
        _, done = shop.run("production", run=number, approved=True)
        assert done.result == "failure"
        assert "Check out the app" not in done.log, "nothing comes after the look at the run"
    assert f"run {failed.number} is not one of this workflow" in done.log


def test_after_a_lost_runner_the_next_run_goes_on(shop: Shop) -> None:
    (shop.repository / "example/blog/later.py").write_text("LATER = 2\n")
    commit(shop.repository, "a change")
    _, lost = shop.run("staging", version="2.0.0", dies_at="start the new release")
    assert lost.result == "failure"
    assert shop.journal("staging")[-1]["event"] != "end", "the runner was to die in the midst of it"

    _, again = shop.run("staging", version="2.0.0")
    assert again.result == "success", again.log
    assert shop.journal("staging")[-1]["result"] == "done"
    assert shop.servers["staging"].lock_is_free(shop.name)
    serving = shop.servers["staging"].root(f"docker ps --filter label=dev.tidegate.app={shop.name} --format '{{{{.Image}}}}'")
    assert set(serving.split()) == {f"tidegate/{shop.name}:2.0.0"}


def test_backups_are_brought_and_restored_by_maintenance(shop: Shop) -> None:
    run = Run(shop.forge, "maintenance", secrets=shop.secrets, inputs={"environment": "staging"})
    with container(shop.forge.folder) as machine:
        done = run.job("backups", machine)
    assert done.result == "success", done.log


def test_a_job_without_the_key_is_told_that_the_server_does_not_take_it(shop: Shop) -> None:
    del shop.secrets["SSH_KEY"]
    _, done = shop.run("staging", version="3.0.0")
    assert done.result == "failure"
    assert "the server does not accept our key" in done.log

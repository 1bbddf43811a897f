"""The engine of a server dies and comes back."""

from __future__ import annotations

import pytest

from deploy import sandbox_server
from ops.this_machine import local_client
from tests.integration.project import App, wait_until

pytestmark = pytest.mark.integration


def test_after_an_engine_restart_app_and_edge_come_back_by_themselves(shaky: App) -> None:
    server, others = shaky.servers[0], shaky.containers()
    running = server.running(shaky.name)
    server.root("kill -9 $(cat /run/docker.pid); while kill -0 $(cat /run/docker.pid) 2>&-; do sleep 0.02; done; true")
    sandbox_server.wait_ready(local_client(), server.known.name)

    seconds = wait_until(lambda: server.get(shaky.domain, "/health")[0] == 200, "the app does not come back")
    wait_until(lambda: server.running(shaky.name) == running, "not what ran before came back")
    assert shaky.containers() == others
    assert shaky.deploy().document["result"] == "unchanged"
    assert shaky.deploy("--force").document["result"] == "done"
    print(f"answers {seconds:.2f} s after the engine does")

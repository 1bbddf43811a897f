"""Every file of a server: whose it is, who may read it, and that secrets are where they belong and nowhere else."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml

from monitoring.certificates import issue
from monitoring.files import MEMBERS, OWNER, File
from monitoring.inventory import inventory
from monitoring.render import identity_files, render, require_urls, secret_names, tls_services
from monitoring.stack import OWNERS
from ops.config import Environment
from ops.errors import ConfigError
from ops.secret import Secret
from tests.monitoring.watched import AWAY, ONE, TWO, environment, with_database

TOLD = {
    "heartbeat": "BEAT", "slack": {"webhook": "SLACK"}, "webhooks": {"pager": {"url": "PAGER"}},
    "email": {"server": "m.example.com:587", "sender": "a@b.c", "to": ["d@e.f"], "user": "a", "password": "MAIL"},
    "remote_write": {"url": "https://metrics.example.com", "user": "shop", "password": "REMOTE"},
    "object_storage": {"bucket": "logs", "endpoint": "s3.example.com", "access_key": "KEY", "secret_key": "STORE"},
}  # fmt: skip
SECRETS = {
    name: Secret(f"hunter2-{name}") for name in ("BEAT", "SLACK", "PAGER", "MAIL", "REMOTE", "KEY", "STORE", "DB_PASSWORD")
}
EVERYTHING = environment(ONE, TWO, app=with_database() | {"metrics": {}}, monitoring=TOLD)
LEAN = environment(monitoring={"without": ["grafana", "loki", "cadvisor", "blackbox", "edge"]})


def rendered(env: Environment) -> list[dict[str, File]]:
    """Return each server's files by path."""
    known = inventory(env)
    found = [render(env, known, host, SECRETS) for host in known.hosts]
    assert all(len({file.path for file in files}) == len(files) for files in found), "two files of one path"
    return [{file.path: file for file in files} for files in found]


def test_a_server_says_whose_stack_it_has() -> None:
    for files in rendered(EVERYTHING):
        assert json.loads(files[OWNER].content) == {"app": "blog", "environment": "production"}


def test_a_server_says_which_servers_believe_each_other() -> None:
    assert [json.loads(files[MEMBERS].content) for files in rendered(EVERYTHING)] == [["10.0.0.1", "fd00::2"]] * 2
    assert [json.loads(files[MEMBERS].content) for files in rendered(environment(ONE))] == [[]]


def test_what_the_gate_keeps_out_is_the_apps_network_of_its_server() -> None:
    known = inventory(LEAN)
    files = {file.path: file.content for file in render(LEAN, known, known.watcher, {}, apps=("10.213.0.0/20", "fd00:7::/64"))}
    assert "deny 10.213.0.0/20;\n        deny fd00:7::/64;" in files["gate/nginx.conf"]


def test_the_stacks_files_are_on_its_server_only() -> None:
    first, second = rendered(EVERYTHING)
    everywhere = {OWNER, MEMBERS, "gate"}
    assert {file.service for file in second.values()} == everywhere | {"collector"}
    stack = {"prometheus", "alertmanager", "grafana", "loki", "blackbox"}
    assert {file.service for file in first.values()} == everywhere | {"collector", "postgres-exporter"} | stack
    assert {file.service for file in rendered(LEAN)[0].values()} == everywhere | {"prometheus", "alertmanager"}


def test_every_secret_is_in_files_that_only_its_service_reads_and_in_no_other() -> None:
    first, second = rendered(EVERYTHING)
    holding = {path: file for path, file in first.items() if "hunter2" in file.content}
    assert {path: (file.mode, file.owner) for path, file in holding.items()} == {
        "postgres-exporter/secrets/password": (0o400, 65534), "prometheus/secrets/remote_write": (0o400, 65534),
        "loki/secrets/s3": (0o400, OWNERS["loki"]),
        **{f"alertmanager/secrets/{name}": (0o400, OWNERS["alertmanager"]) for name in ("BEAT", "SLACK", "PAGER", "MAIL")},
    }  # fmt: skip
    assert not [path for path, file in second.items() if "hunter2" in file.content]
    for name in SECRETS:
        assert sum(f"hunter2-{name}" in file.content for file in first.values()) == 1


def test_whatever_is_no_secret_is_roots_and_everybody_may_read_it() -> None:
    for files in [*rendered(EVERYTHING), *rendered(LEAN)]:
        assert {(file.mode, file.owner) for path, file in files.items() if "/secrets/" not in path} == {(0o644, 0)}


def test_the_secrets_to_be_read_are_those_that_files_hold() -> None:
    assert set(secret_names(EVERYTHING, inventory(EVERYTHING))) == set(SECRETS)
    assert secret_names(LEAN, inventory(LEAN)) == ()


def test_a_database_without_a_password_has_an_empty_one() -> None:
    (files,) = rendered(environment(app=with_database(password=None)))
    assert files["postgres-exporter/secrets/password"].content == ""


def test_every_document_is_one() -> None:
    for files in rendered(EVERYTHING):
        for path, file in files.items():
            if path.endswith((".yml", ".yaml")):
                assert isinstance(yaml.safe_load(file.content), dict), path
            if path.endswith(".json"):
                json.loads(file.content)


@pytest.mark.parametrize(("collector", "path"), [("alloy", "collector/config.alloy"), ("promtail", "collector/promtail.yaml")])
def test_logs_go_to_the_loki_beside_or_through_the_gate_of_its_server(collector: str, path: str) -> None:
    first, second = rendered(environment(ONE, TWO, monitoring={"collector": collector}))
    assert "http://loki:3100/loki/api/v1/push" in first[path].content
    assert "https://10.0.0.1:7814/loki/api/v1/push" in second[path].content


def test_a_server_shows_who_it_is_to_whom_it_speaks_and_keeps_its_key_from_others() -> None:
    known = inventory(environment(ONE, TWO, monitoring={"host": AWAY}))
    *apps, stack = known.hosts
    assert [tls_services(known, host) for host in apps] == [["gate", "collector"]] * 2
    assert tls_services(known, stack) == ["gate", "prometheus"]
    identity = issue(["10.0.0.9"], datetime.now(UTC))["10.0.0.9"]
    files = {file.path: file for file in identity_files(known, stack, identity)}
    assert set(files) == {f"{service}/tls/{name}.pem" for service in ("gate", "prometheus") for name in ("ca", "cert", "key")}
    for service, user in (("gate", 101), ("prometheus", 65534)):
        key = files[f"{service}/tls/key.pem"]
        assert (key.content, key.mode, key.owner) == (identity.key, 0o400, user)
        assert (files[f"{service}/tls/ca.pem"].content, files[f"{service}/tls/ca.pem"].mode) == (identity.ca, 0o444)
        assert files[f"{service}/tls/cert.pem"].content == identity.certificate


def test_a_server_without_a_collector_shows_nothing_on_its_behalf() -> None:
    known = inventory(environment(ONE, TWO, monitoring={"without": ["loki"]}))
    assert [tls_services(known, host) for host in known.hosts] == [["gate", "prometheus"], ["gate"]]


def test_probes_see_what_users_see_and_follow_nobody() -> None:
    document = yaml.safe_load(rendered(environment())[0]["blackbox/blackbox.yml"].content)
    module: dict[str, Any] = document["modules"]["http"]
    assert (module["prober"], module["http"]["method"], module["http"]["follow_redirects"]) == ("http", "GET", False)
    assert module["http"]["headers"] == {"User-Agent": "tidegate"}  # the edge does not log it


def boards(env: Environment) -> str:
    return "".join(file.content for path, file in rendered(env)[0].items() if path.startswith("grafana/dashboards/"))


@pytest.mark.parametrize(
    ("figure", "lacking"),
    [
        (r"\bhttp_request(s_total|_duration)", environment()),
        (r"\bpg_", environment()),
        (r"\bpg_", environment(app=with_database(), monitoring={"without": ["postgres"]})),
        (r"\bcontainer_memory", environment(monitoring={"without": ["cadvisor"]})),
        (r"\bnginx_", environment(monitoring={"without": ["edge"]})),
        (r'"uid": "loki"', environment(monitoring={"without": ["loki"]})),
    ],
)
def test_dashboards_show_what_there_is_and_nothing_else(figure: str, lacking: Environment) -> None:
    assert re.search(figure, boards(EVERYTHING))
    assert not re.search(figure, boards(lacking))


URLS = environment(
    monitoring={"slack": {"webhook": "HOOK"}, "heartbeat": "BEAT", "webhooks": {"pager": {"url": "PAGER"}}}
).monitoring
GOOD = {name: Secret(f"https://hooks.example.com/{name}\n") for name in ("HOOK", "BEAT", "PAGER")}


@pytest.mark.parametrize("name", sorted(GOOD))
@pytest.mark.parametrize(
    "text", ["hunter2", "", "hooks.example.com/hunter2", "https:///hunter2", "ftp://hooks.example.com/hunter2"]
)
def test_a_secret_that_is_no_url_is_refused_without_being_shown(name: str, text: str) -> None:
    require_urls(URLS, GOOD)
    with pytest.raises(ConfigError, match=f"the secret {name} is not a URL") as caught:
        require_urls(URLS, {**GOOD, name: Secret(text)})
    assert "hunter2" not in str(caught.value)

"""What ops.toml may say about monitoring."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.intent import _what_runs
from ops.config import App, ConfigProblems, Environment, HostAddress, Problem, Project, load
from ops.config_explain import explain

EVERYTHING = """
host = "198.51.100.7"
heartbeat = "BEAT"
slack = { webhook = "SLACK" }
email = { server = "smtp.example.com:587", sender = "a@example.com", to = ["b@example.com"], password = "MAIL" }
webhooks.pager = { url = "PAGER" }
webhooks.chat = { url = "SLACK" }
remote_write = { url = "https://metrics.example.com/write", password = "REMOTE" }
object_storage = { bucket = "logs", endpoint = "s3.example.com", access_key = "S3_KEY", secret_key = "S3_SECRET" }
grafana = { domain = "Grafana.example.com", certificate = "Dockerfile", key = "GRAFANA_KEY" }
"""


def loaded(folder: Path, text: str, app: str = "", production: str = "") -> Project:
    (folder / "Dockerfile").touch()
    (folder / "ops.toml").write_text(
        f'[app]\nname = "blog"\nport = 3000\nsecrets = ["KEY"]\n{app}\n[monitoring]\n{text}\n'
        f'[environments.production]\ndomain = "a.b"\nhosts = ["deploy@203.0.113.10"]\n{production}\n'
    )
    return load(folder / "ops.toml", {})


def environment(folder: Path, text: str = "", app: str = "", production: str = "") -> Environment:
    return loaded(folder, text, app, production).environment("production")


def problem(folder: Path, text: str, app: str = "") -> Problem:
    with pytest.raises(ConfigProblems) as caught:
        loaded(folder, text, app)
    (one,) = caught.value.problems
    return one


def test_nothing_has_to_be_said(tmp_path: Path) -> None:
    env = environment(tmp_path)
    told = env.monitoring
    assert (told.collector, told.without, told.timeout) == ("alloy", (), 180)
    assert (told.metrics_keep, told.metrics_size, told.logs_keep) == (30 * 86400, "10g", 14 * 86400)
    assert (told.secret_names, env.app.metrics, env.watcher) == ((), None, env.hosts[0])
    assert (env.app.objectives.availability, env.app.objectives.latency, env.app.objectives.within) == (99.9, 99.0, 0.5)


def test_everything_may_be_said(tmp_path: Path) -> None:
    told = environment(tmp_path, EVERYTHING).monitoring
    assert told.host == HostAddress(address="198.51.100.7")
    assert told.slack
    assert told.slack.severities == ("critical", "warning")
    assert told.grafana
    assert (told.grafana.domain, told.grafana.certificate) == ("grafana.example.com", tmp_path / "Dockerfile")
    assert list(told.webhooks) == ["pager", "chat"]


def test_its_secrets_are_secrets_of_the_environment_each_once(tmp_path: Path) -> None:
    names = ("BEAT", "SLACK", "MAIL", "PAGER", "GRAFANA_KEY", "REMOTE", "S3_KEY", "S3_SECRET")
    env = environment(tmp_path, EVERYTHING)
    assert env.monitoring.secret_names == names
    assert env.secret_names == ("KEY", *names)


def test_an_environment_may_be_watched_in_another_way(tmp_path: Path) -> None:
    text = 'logs_keep = "3d"\nslack = { webhook = "SLACK", channel = "#all" }'
    told = environment(
        tmp_path, text, production='monitoring.slack.channel = "#production"\nmonitoring.without = ["grafana"]'
    ).monitoring
    assert told.slack
    assert (told.logs_keep, told.without, told.slack.webhook, told.slack.channel) == (
        3 * 86400,
        ("grafana",),
        "SLACK",
        "#production",
    )


@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        ('collector = "fluentd"', "collector", "'alloy' or 'promtail'"),
        ('without = ["prometheus"]', "without[0]", "'grafana'"),
        ('without = ["loki", "loki"]', "without", "twice: loki"),
        ('metrics_keep = "long"', "metrics_keep", "a period such as"),
        ('metrics_keep = "59m"', "metrics_keep", "3600"),
        ('metrics_size = "much"', "metrics_size", "a size such as"),
        ('heartbeat = "https://hc-ping.com/hunter2"', "heartbeat", "the name of an environment variable"),
        ('slack.webhook = "https://hooks.slack.com/hunter2"', "slack.webhook", "the name of an environment variable"),
        ('slack.channel = "#x"', "slack.webhook", "it is required"),
        ('slack = { webhook = "S", severities = [] }', "slack.severities", "at least 1"),
        ('slack = { webhook = "S", severities = ["loud"] }', "slack.severities[0]", "'critical'"),
        ('slack = { webhook = "S", severities = ["info", "info"] }', "slack.severities", "twice: info"),
        ('email = { server = "smtp.example.com", sender = "a@b", to = ["c@d"] }', "email.server", "with its port"),
        ('email = { server = "smtp.example.com:25", sender = "a@b", to = [] }', "email.to", "at least 1"),
        *(
            (f'email = {{ server = "smtp.example.com:25", sender = "{one}", to = ["c@d"] }}', "email.sender", "a mail address")
            for one in ("oncall", "On Call <a@b>", "a@b, c@d", "a@b@c", "@b", "a@")
        ),
        ('webhooks.Pager.url = "P"', "webhooks.Pager", "a name of at most"),
        ('runbooks = "https://ann:hunter2@example.com"', "runbooks", "without user and password"),
        ('remote_write.url = "metrics.example.com"', "remote_write.url", "a URL such as"),
        ('grafana = { domain = "*.example.com", certificate = "Dockerfile", key = "K" }', "grafana.domain", "a single host name"),
        (
            'grafana = { domain = "g.example.com", certificate = "none.pem", key = "K" }',
            "grafana.certificate",
            "an existing file",
        ),
        *(
            (
                f'host = {{ address = "h", private = "{one}" }}',
                "host.private",
                "an IP address of the server's own, such as 10.0.0.5",
            )
            for one in (
                "ten",
                "0.0.0.0",
                "::",
                "127.0.0.1",
                "127.8.0.1",
                "::1",
                "224.0.0.1",
                "ff02::1",
                "fe80::1%eth0",
                "10.0.0.0/8",
            )
        ),
        ('metrics_keep = "59m"', "metrics_keep", ""),
        ('host = "-oProxyCommand=x"', "host.address", "a host name or an IP address"),
        (
            'object_storage = { bucket = "b", endpoint = "e", access_key = "K", secret_key = "hunter2!" }',
            "object_storage.secret_key",
            "variable",
        ),
        ('prometheus = "x"', "prometheus", ""),
    ],
)
def test_a_mistake_is_named_with_what_was_expected(tmp_path: Path, text: str, key: str, expected: str) -> None:
    one = problem(tmp_path, text)
    assert (one.file, one.key) == ("ops.toml", f"monitoring.{key}")
    assert expected in one.expected
    assert "hunter2" not in f"{one.expected} {one.found}"


@pytest.mark.parametrize(
    ("app", "key", "expected"),
    [
        ('metrics.path = "metrics"', "metrics.path", "a plain path"),
        ('metrics.path = "/"', "metrics.path", "a plain path"),
        ('metrics.path = "//"', "metrics.path", "a plain path"),
        ('metrics.path = "///"', "metrics.path", "a plain path"),
        ('metrics.path = "//metrics"', "metrics.path", "a plain path"),
        ('metrics.path = "/a/../metrics"', "metrics.path", "a plain path"),
        ('metrics.path = "/."', "metrics.path", "a plain path"),
        ('metrics.path = "/figures?of=all"', "metrics.path", "a plain path"),
        ('metrics.path = "/%6Detrics"', "metrics.path", "a plain path"),
        ('metrics.path = "/x; }"', "metrics.path", "a plain path"),
        ("metrics.port = 0", "metrics.port", "at least 1"),
        ('metrics.requests = "http.requests"', "metrics.requests", "a metric's name"),
        ('metrics.status = "__name__"', "metrics.status", "a label's name"),
        ("objectives.availability = 100", "objectives.availability", "less than 100"),
        ("objectives.latency = 1", "objectives.latency", "at least 50"),
        ('objectives.within = "0s"', "objectives.within", ""),
    ],
)
def test_so_is_one_about_the_app(tmp_path: Path, app: str, key: str, expected: str) -> None:
    one = problem(tmp_path, "", app)
    assert one.key == f"app.{key}"
    assert expected in one.expected


def test_an_app_cannot_have_the_folder_of_the_stack(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").touch()
    (tmp_path / "ops.toml").write_text('[app]\nname = "monitoring"\nport = 1\n[environments.p]\ndomain = "a.b"\nhosts = ["h"]\n')
    with pytest.raises(ConfigProblems, match="does not use itself"):
        load(tmp_path / "ops.toml", {})


def test_how_an_app_is_watched_is_no_reason_to_restart_it_but_where_it_tells_its_figures_is(tmp_path: Path) -> None:
    def runs(text: str, app: str) -> object:
        return _what_runs(environment(tmp_path, text, app), "", None)

    plain = runs("", "metrics = {}")
    assert runs(EVERYTHING, "metrics = {}\nobjectives.availability = 99") == plain
    for other in ("", "metrics.path = '/figures'", "metrics.public = true"):
        assert runs("", other) != plain


def test_what_is_in_effect_is_shown_and_no_secret_has_a_value(tmp_path: Path) -> None:
    rows = {key: value for key, value, _ in explain(loaded(tmp_path, EVERYTHING), "production")}
    assert rows["monitoring.logs_keep"] == '"14d"'
    assert rows["monitoring.webhooks.pager.url"] == '"PAGER"'


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("web1", "web1"), ("deploy@web1", "deploy@web1"), ("deploy@web1:22", "deploy@web1"), ("web1:2222", "web1:2222"),
        ("2001:db8::1", "2001:db8::1"), ("[2001:db8::1]:2222", "[2001:db8::1]:2222"),
    ],
)  # fmt: skip
def test_a_server_is_named_as_people_would_write_it(text: str, name: str) -> None:
    found = HostAddress.model_validate(text)
    assert (found.name, str(found), HostAddress.model_validate(found.name)) == (name, name, HostAddress.model_validate(name))


def test_a_private_address_is_written_in_one_way(tmp_path: Path) -> None:
    env = environment(tmp_path, 'host = { address = "h", private = "FD00:0:0::2" }')
    assert env.watcher.private == "fd00::2"


def test_defaults_of_an_app_are_those_that_clients_of_prometheus_have() -> None:
    app = App.model_validate({"name": "blog", "port": 3000, "metrics": {}})
    assert app.metrics
    told = app.metrics
    assert (told.path, told.port, told.public, told.requests, told.status, told.duration) == (
        "/metrics", None, False, "http_requests_total", "code", "http_request_duration_seconds",
    )  # fmt: skip

"""How an environment is watched: the stack, who is told of alerts, what an app promises."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from ops import config_values as check
from ops.config_hosts import HostAddress
from ops.config_types import Count, File, Flag, Model, Pause, Period, Port, Size, Text, Variable, distinct

Severity = Literal["critical", "warning", "info"]
Severities = Annotated[tuple[Severity, ...], Field(min_length=1), AfterValidator(distinct)]
Part = Literal["grafana", "loki", "collector", "cadvisor", "blackbox", "edge", "postgres"]


class AppMetrics(Model):
    """Where the app tells its own figures, and what it calls them."""

    path: Annotated[str, AfterValidator(check.metrics_path)] = "/metrics"
    port: Port | None = None
    public: Flag = False
    requests: Annotated[str, AfterValidator(check.metric)] = "http_requests_total"
    status: Annotated[str, AfterValidator(check.label)] = "code"
    duration: Annotated[str, AfterValidator(check.metric)] = "http_request_duration_seconds"


class Objectives(Model):
    """What the app promises its users, in percent of requests; alerts tell how fast that is used up."""

    availability: Annotated[float, Field(ge=50, lt=100)] = 99.9
    latency: Annotated[float, Field(ge=50, lt=100)] = 99.0
    within: Pause = 0.5
    minimum: Count = 100


class Slack(Model):
    """A Slack channel: the name of the secret with its webhook's URL."""

    webhook: Variable
    channel: Text | None = None
    severities: Severities = ("critical", "warning")


class Email(Model):
    """E-mail over a server that takes TLS."""

    server: Annotated[str, AfterValidator(check.smarthost)]
    sender: Annotated[str, AfterValidator(check.mail_address)]
    to: Annotated[tuple[Annotated[str, AfterValidator(check.mail_address)], ...], Field(min_length=1)]
    user: Text | None = None
    password: Variable | None = None
    severities: Severities = ("critical", "warning")


class Webhook(Model):
    """Any address that takes Alertmanager's JSON: the name of the secret with its URL."""

    url: Variable
    severities: Severities = ("critical", "warning")


class PublicGrafana(Model):
    """Grafana behind the edge, for those who cannot forward a port; TLS is required."""

    domain: Annotated[str, AfterValidator(check.domain)]
    certificate: File
    key: Variable


class RemoteWrite(Model):
    """A bigger store that Prometheus copies everything to."""

    url: Annotated[str, AfterValidator(check.url_with_path)]
    user: Text | None = None
    password: Variable | None = None


class ObjectStorage(Model):
    """S3 or the like, where Loki keeps logs instead of its volume."""

    bucket: Text
    endpoint: Text
    region: Text = "us-east-1"
    access_key: Variable
    secret_key: Variable
    insecure: Flag = False


class Monitoring(Model):
    """The stack that watches an environment."""

    host: HostAddress | None = None
    collector: Literal["alloy", "promtail"] = "alloy"
    without: Annotated[tuple[Part, ...], AfterValidator(distinct)] = ()
    metrics_keep: Annotated[Period, Field(ge=3600)] = 30 * 86400.0
    metrics_size: Size = "10g"
    logs_keep: Period = 14 * 86400.0
    timeout: Pause = 180.0
    runbooks: Annotated[str, AfterValidator(check.url_with_path)] | None = None
    heartbeat: Variable | None = None
    slack: Slack | None = None
    email: Email | None = None
    webhooks: dict[Annotated[str, AfterValidator(check.name)], Webhook] = {}
    grafana: PublicGrafana | None = None
    remote_write: RemoteWrite | None = None
    object_storage: ObjectStorage | None = None

    @property
    def secret_names(self) -> tuple[str, ...]:
        """Every secret that the stack uses, each once."""
        known = [
            self.heartbeat, self.slack and self.slack.webhook, self.email and self.email.password,
            *(webhook.url for webhook in self.webhooks.values()), self.grafana and self.grafana.key,
            self.remote_write and self.remote_write.password, self.object_storage and self.object_storage.access_key,
            self.object_storage and self.object_storage.secret_key,
        ]  # fmt: skip
        return tuple(dict.fromkeys(name for name in known if name))

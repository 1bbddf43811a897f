"""Alertmanager's configuration: who is told what, when, and in which words. Pure.

Secrets are files, which Alertmanager reads anew for each message.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from monitoring.alerts import DRILL, INHIBITIONS, WATCHDOG, Inhibition, named
from monitoring.files import MOUNT, SECRETS, File
from ops.config import Monitoring

NOBODY, HEARTBEAT, DRILLED = "nobody", "heartbeat", "drill-"

_TEMPLATES = Path(__file__).parent / "templates"
_SLOWEST = "15s"  # an answer to one message; what fails is tried again until the group's next turn

# A group's first message waits for what belongs to it (and for what mutes it), its changes for the next turn; then repeats.
_TIMES = {
    "critical": {"group_wait": "10s", "group_interval": "2m", "repeat_interval": "4h"},
    "warning": {"group_wait": "1m", "group_interval": "10m", "repeat_interval": "1d"},
    "info": {"group_wait": "1m", "group_interval": "1h", "repeat_interval": "4d"},
}


@dataclass(frozen=True)
class Destination:
    """Somebody who is told: the receiver's name, what it hears of, and how Alertmanager reaches it."""

    name: str
    severities: tuple[str, ...]
    kind: str
    how: Mapping[str, Any]


def render(settings: Monitoring, environment: str) -> list[File]:
    """Return Alertmanager's configuration and the templates of its messages."""
    return [
        File(
            "alertmanager/alertmanager.yml",
            "# Written by `inv monitoring.up`.\n" + yaml.dump(_main(settings), Dumper=_Plain, sort_keys=False, width=130),
        ),
        File("alertmanager/templates/environment.tmpl", _words(settings, environment)),
        *(File(f"alertmanager/templates/{path.name}", path.read_text("utf-8")) for path in sorted(_TEMPLATES.glob("*.tmpl"))),
    ]


class _Plain(yaml.SafeDumper):
    """Every value in full, where YAML would refer to the one before."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def secret_names(settings: Monitoring) -> tuple[str, ...]:
    """Return the secrets that Alertmanager reads; each is a file of that name in its folder of secrets."""
    known = [settings.slack and settings.slack.webhook, settings.email and settings.email.password]
    known += [webhook.url for webhook in settings.webhooks.values()] + [settings.heartbeat]
    return tuple(dict.fromkeys(name for name in known if name))


def destinations(settings: Monitoring) -> tuple[Destination, ...]:
    """Return everybody who is told of alerts; the heartbeat is nobody."""
    return tuple(_destinations(settings))


def _destinations(settings: Monitoring) -> Iterator[Destination]:
    if settings.slack:
        how = {"api_url_file": _secret(settings.slack.webhook), "channel": settings.slack.channel, **_SLACK}
        yield Destination("slack", settings.slack.severities, "slack_configs", how)
    if settings.email:
        yield Destination("email", settings.email.severities, "email_configs", _email(settings))
    for name, webhook in settings.webhooks.items():
        how = {"url_file": _secret(webhook.url), "timeout": _SLOWEST}
        yield Destination(f"webhook-{name}", webhook.severities, "webhook_configs", how)


_SLACK = {
    "username": "Tidegate",
    "title": '{{ template "tidegate.title" . }}',
    "title_link": "{{ .ExternalURL }}",
    "fallback": '{{ template "tidegate.title" . }}',
    "text": '{{ template "tidegate.slack" . }}',
    "color": '{{ template "tidegate.color" . }}',
    "timeout": _SLOWEST,
}


def _email(settings: Monitoring) -> Mapping[str, Any]:
    email = settings.email
    assert email is not None
    known = {"auth_username": email.user} if email.user else {}
    known |= {"auth_password_file": _secret(email.password)} if email.password else {}
    return {
        "to": ", ".join(email.to), "from": email.sender, "smarthost": email.server, "require_tls": True, **known,
        "headers": {"Subject": '{{ template "tidegate.title" . }}'},
        "text": '{{ template "tidegate.text" . }}', "html": '{{ template "tidegate.html" . }}',
    }  # fmt: skip


def _main(settings: Monitoring) -> Mapping[str, Any]:
    told = destinations(settings)
    return {
        "route": _tree(told, heartbeat=settings.heartbeat is not None),
        "receivers": [{"name": NOBODY}, *_heartbeat(settings.heartbeat), *(one for to in told for one in _receivers(to))],
        "inhibit_rules": [_inhibition(one) for one in INHIBITIONS],
        "templates": [f"{MOUNT}/templates/*.tmpl"],
    }


def _tree(told: tuple[Destination, ...], *, heartbeat: bool) -> Mapping[str, Any]:
    """Return the routes. What has no severity that we know is treated as a warning: nothing falls through."""
    drill = {"group_by": ["..."], "group_wait": "0s", "group_interval": "1m", "repeat_interval": "1d"}
    beat = {"group_wait": "0s", "group_interval": "30s", "repeat_interval": "45s"}  # every second turn: once a minute
    return {
        "receiver": NOBODY,
        "group_by": ["alertname", "app"],
        "routes": [
            {"matchers": [named(WATCHDOG)], "receiver": HEARTBEAT if heartbeat else NOBODY, **beat},
            _branch([DRILLED + to.name for to in told], [named(DRILL)], drill),
            {"matchers": ['severity="none"'], "receiver": NOBODY},
            *(_by_severity(told, severity, [f'severity="{severity}"']) for severity in ("critical", "info")),
            _by_severity(told, "warning", []),
        ],
    }


def _by_severity(told: tuple[Destination, ...], severity: str, matchers: list[str]) -> Mapping[str, Any]:
    return _branch([to.name for to in told if severity in to.severities], matchers, _TIMES[severity])


def _branch(names: list[str], matchers: list[str], times: Mapping[str, Any]) -> Mapping[str, Any]:
    return {
        **({"matchers": matchers} if matchers else {}),
        "receiver": NOBODY,
        **times,
        "routes": [{"receiver": name, "continue": True} for name in names],
    }


def _receivers(to: Destination) -> list[Mapping[str, Any]]:
    """Return a destination's receiver, and the one of drills: one message, and none when a drill is over."""
    return [
        {"name": to.name, to.kind: [{**to.how, "send_resolved": True}]},
        {"name": DRILLED + to.name, to.kind: [{**to.how, "send_resolved": False}]},
    ]


def _heartbeat(secret: str | None) -> list[Mapping[str, Any]]:
    how = {"url_file": _secret(secret), "send_resolved": False, "timeout": _SLOWEST} if secret else {}
    return [{"name": HEARTBEAT, "webhook_configs": [how]}] if how else []


def _inhibition(one: Inhibition) -> Mapping[str, Any]:
    return {"name": one.name, "source_matchers": list(one.when), "target_matchers": list(one.mutes), "equal": list(one.equal)}


def _secret(name: str | None) -> str:
    return f"{SECRETS}/{name}"


def _words(settings: Monitoring, environment: str) -> str:
    runbooks = f"{settings.runbooks.rstrip('/')}/" if settings.runbooks else "docs/runbooks/"
    known = {"tidegate.environment": json.dumps(environment), "tidegate.runbooks": json.dumps(runbooks)}
    return "".join(f'{{{{ define "{name}" }}}}{{{{ {value} }}}}{{{{ end }}}}\n' for name, value in known.items())

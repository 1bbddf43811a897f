"""Who is told what, as Alertmanager is told; what it makes of it is in tests/integration/test_alert_delivery.py."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from monitoring.alertmanager import destinations, render, secret_names
from monitoring.alerts import INHIBITIONS, OF_A_SWAP, SYMPTOMS, Matcher
from monitoring.prometheus import RULES
from ops.config import Monitoring
from ops.durations import seconds

SLACK = {"webhook": "SLACK_URL", "channel": "#ops"}
EMAIL = {
    "server": "mail.example.com:587",
    "sender": "a@example.com",
    "to": ["b@example.com"],
    "user": "a",
    "password": "MAIL_PASSWORD",
}
WEBHOOKS = {"pager": {"url": "PAGER_URL", "severities": ["critical"]}, "slack": {"url": "OTHER_URL"}}


def settings(**told: Any) -> Monitoring:
    return Monitoring.model_validate(told)


def everything() -> Monitoring:
    return settings(slack=SLACK, email=EMAIL, webhooks=WEBHOOKS, heartbeat="BEAT_URL", runbooks="https://wiki.example.com/r/")


def configuration(told: Monitoring) -> dict[str, Any]:
    (text,) = (file.content for file in render(told, "production") if file.path == "alertmanager/alertmanager.yml")
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def words(told: Monitoring, environment: str = "production") -> str:
    return next(file.content for file in render(told, environment) if file.path.endswith("environment.tmpl"))


def rules() -> dict[str, float]:
    """Return every alert with how long its condition holds before it fires; the shortest of several."""
    found: dict[str, float] = {}
    for path in [*RULES.glob("*.yml"), *RULES.glob("loki/*.yml")]:
        for rule in (rule for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"] if "alert" in rule):
            found[rule["alert"]] = min(seconds(str(rule.get("for", "0s"))), found.get(rule["alert"], float("inf")))
    return found


def names(matchers: tuple[str, ...]) -> list[str]:
    """Return the alerts that matchers name."""
    return [name for one in matchers for text in re.findall(r'^alertname=~?"(.*)"$', one) for name in text.split("|")]


def test_secrets_are_files_of_their_name_and_nowhere_else() -> None:
    told = everything()
    assert set(secret_names(told)) == {"SLACK_URL", "MAIL_PASSWORD", "PAGER_URL", "OTHER_URL", "BEAT_URL"}
    files = set(re.findall(r'"/etc/tidegate/secrets/(\w+)"', json.dumps(configuration(told))))
    assert files == set(secret_names(told))


def test_every_receiver_has_a_twin_for_drills_that_differs_only_in_saying_nothing_at_the_end() -> None:
    told = everything()
    receivers = {one.pop("name"): one for one in configuration(told)["receivers"]}
    assert [one.name for one in destinations(told)] == ["slack", "email", "webhook-pager", "webhook-slack"]
    for one in destinations(told):
        (own,), (twin,) = receivers[one.name][one.kind], receivers[f"drill-{one.name}"][one.kind]
        assert (own.pop("send_resolved"), twin.pop("send_resolved")) == (True, False)
        assert own == twin


def test_mail_is_never_sent_in_the_clear() -> None:
    receivers = configuration(settings(email={**EMAIL, "user": "", "password": None}))["receivers"]
    (own,) = next(one["email_configs"] for one in receivers if one["name"] == "email")
    assert own["require_tls"] is True
    assert not {"auth_username", "auth_password_file"} & set(own)


def test_where_nobody_is_told_every_route_ends_with_nobody() -> None:
    found = configuration(settings())
    assert [one["name"] for one in found["receivers"]] == ["nobody"]
    assert {route["receiver"] for route in found["route"]["routes"]} == {"nobody"}


def test_a_message_is_repeated_after_several_of_its_groups_turns() -> None:
    timed = [route for route in configuration(everything())["route"]["routes"] if "group_interval" in route]
    assert len(timed) == 5
    assert not [route for route in timed if seconds(route["repeat_interval"]) <= seconds(route["group_interval"])]


def test_a_runbook_is_named_below_the_address_of_runbooks_or_else_in_the_repository() -> None:
    assert '{{ define "tidegate.runbooks" }}{{ "https://wiki.example.com/r/" }}{{ end }}' in words(everything())
    assert '{{ define "tidegate.runbooks" }}{{ "docs/runbooks/" }}{{ end }}' in words(settings())


def test_an_environment_is_a_string_of_the_templates_whatever_it_is_called() -> None:
    assert '{{ define "tidegate.environment" }}{{ "a\\"}}b" }}{{ end }}' in words(settings(), 'a"}}b')


def test_every_alert_that_is_named_here_has_a_rule() -> None:
    named = {name for one in INHIBITIONS for name in (*names(one.when), *names(one.mutes))}
    assert {*named, *SYMPTOMS, *OF_A_SWAP} - set(rules()) == set()


LATER = {"ProbeFailed": 60.0, "BackupStale": 3600.0}  # by so much their expressions come after the cause
FIRST_MESSAGE = {
    "critical": 10.0 - 15.0,
    "warning": 60.0 - 15.0,
}  # a group's wait, less what two rules may be apart in an evaluation


@pytest.mark.parametrize("one", INHIBITIONS, ids=lambda one: one.name)
def test_what_mutes_is_there_before_what_it_mutes_is_told(one: Any) -> None:
    holds, severities = rules(), severity_of_each()
    for cause in names(one.when):
        for muted in names(one.mutes):
            told = holds[muted] + LATER.get(muted, 0) + FIRST_MESSAGE[severities[muted]]
            assert holds[cause] + LATER.get(cause, 0) <= told, f"{cause} fires after {muted} is told"


def mutes(one: Any, when: dict[str, str], labels: dict[str, str]) -> bool:
    def hold(conditions: tuple[str, ...], known: dict[str, str]) -> bool:
        parts = [re.fullmatch(r'(\w+)(=~|!~|!=|=)"(.*)"', text) for text in conditions]
        return all(Matcher(part[1], part[3], "~" in part[2], part[2][0] == "=").matches(known) for part in parts if part)

    return hold(one.when, when) and hold(one.mutes, labels) and all(when.get(name) == labels.get(name) for name in one.equal)


@pytest.mark.parametrize("told", [{"alertname": "EdgeDown"}, {"alertname": "ContainerMissing", "container": "tidegate-edge"}])
def test_that_grafanas_own_page_is_not_served_mutes_nothing_of_the_edge(told: dict[str, str]) -> None:
    """Its probe may fail for reasons of its own, and users are none the wiser."""
    failed = {"alertname": "ProbeFailed", "instance": "https://x"}
    assert [one.name for one in INHIBITIONS if mutes(one, failed | {"app": "blog"}, told)]
    assert not [one.name for one in INHIBITIONS if mutes(one, failed | {"app": "grafana"}, told)]


def severity_of_each() -> dict[str, str]:
    found = (yaml.safe_load(path.read_text())["groups"] for path in [*RULES.glob("*.yml"), *RULES.glob("loki/*.yml")])
    return {
        rule["alert"]: rule["labels"]["severity"]
        for groups in found
        for one in groups
        for rule in one["rules"]
        if "alert" in rule
    }


def test_what_users_feel_is_muted_by_nothing_but_a_cause_of_the_same_address() -> None:
    by = {one.name: one.equal for one in INHIBITIONS if set(names(one.mutes)) & set(SYMPTOMS)}
    assert by == {"an expired certificate": ("instance",)}
    assert all(name in INHIBITIONS[0].mutes[0] for name in (*SYMPTOMS, "Watchdog"))


def test_a_deploy_silences_nothing_that_users_feel_nor_the_server_nor_its_data() -> None:
    assert not [
        name for name in OF_A_SWAP if name in SYMPTOMS or name.startswith(("Watchdog", "Host", "Backup", "Deploy", "Disk"))
    ]

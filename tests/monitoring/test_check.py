"""What is sent to be checked, how the answers read, and what is wrong with a dashboard."""

from __future__ import annotations

import io
import json
import tarfile
from typing import Any

import pytest

from monitoring.check import TOOLS, Problem, Tool, _archive, _harmless, _said, _users
from monitoring.checked import Checked, check_dashboards, show
from monitoring.dead import Dead, Fault
from monitoring.files import File
from monitoring.images import NAMES
from ops.console import Console

SOURCES = File("grafana/provisioning/datasources/all.yaml", "datasources: [{uid: prometheus}, {uid: loki}]")
PANEL = {"id": 1, "title": "Requests", "datasource": {"uid": "prometheus"}, "targets": [{"datasource": {"uid": "loki"}}]}
BOARD = {"uid": "tidegate-app", "title": "App", "panels": [PANEL]}


def tool(service: str) -> Tool:
    return next(one for one in TOOLS if one.service == service)


def test_every_program_is_of_an_image_that_is_locked_and_a_service_that_is_run() -> None:
    assert {one.service for one in TOOLS} <= set(NAMES) & set(_users())


def test_no_secret_is_sent_to_be_checked() -> None:
    files = [File("alertmanager/alertmanager.yml", "route: {}"), File("alertmanager/secrets/HOOK", "hunter2", 0o400, 65534)]
    sent = _harmless(files)
    assert [one.path for one in sent] == [one.path for one in files]
    assert b"hunter2" not in _archive(sent)


def test_a_certificate_and_its_key_are_made_up_whether_they_are_known_here_or_stay_on_their_server() -> None:
    main = File("gate/nginx.conf", "ssl_certificate_key /etc/tidegate/tls/key.pem;")
    for files in ([main], [main, File("gate/tls/key.pem", "hunter2", 0o400, 101)]):
        sent = {one.path: one.content for one in _harmless(files)}
        assert set(sent) == {"gate/nginx.conf", "gate/tls/ca.pem", "gate/tls/cert.pem", "gate/tls/key.pem"}
        assert "hunter2" not in sent["gate/tls/key.pem"]


def test_files_are_where_they_will_be_with_their_owner_and_mode() -> None:
    with tarfile.open(fileobj=io.BytesIO(_archive([File("loki/rules/fake/logs.yml", "é", 0o400, 10001)]))) as archive:
        (known,) = archive.getmembers()
    assert (known.name, known.size, known.mode, known.uid, known.gid) == (
        "etc/tidegate/rules/fake/logs.yml", 2, 0o400, 10001, 10001
    )  # fmt: skip


NGINX = """\
2026/11/23 14:22:22 [emerg] 1#1: unknown directive "x" in /etc/tidegate/nginx.conf:3
nginx: configuration file /etc/tidegate/nginx.conf test failed
"""


@pytest.mark.parametrize(
    ("service", "text", "said"),
    [
        ("prometheus", "Checking /etc/tidegate/prometheus.yml\n  SUCCESS: 1 rule files found\n SUCCESS: … is valid\n\n", ""),
        (
            "prometheus",
            "Checking /etc/tidegate/rules/b.yml\n  FAILED:\n/etc/tidegate/rules/b.yml: 5:11: parse error\n",
            "prometheus/rules/b.yml: 5:11: parse error",
        ),
        (
            "alertmanager",
            "Checking '/etc/tidegate/alertmanager.yml'  FAILED: line 6: field x\n\namtool: error: failed to validate 1 file(s)\n",
            "alertmanager/alertmanager.yml: line 6: field x",
        ),
        ("gate", NGINX, '[emerg] unknown directive "x" in gate/nginx.conf:3'),
        (
            "blackbox",
            'time=2026 level=INFO msg="Starting"\ntime=2026 level=ERROR msg="Error loading" err="yaml:\\n  line 4: \\"htp\\""\n',
            'blackbox/blackbox.yml: yaml:\n  line 4: "htp"',
        ),
        ("promtail", "Valid config file! No syntax issues found\n", ""),
    ],
)
def test_what_a_program_says_is_told_by_our_names_without_its_talk(service: str, text: str, said: str) -> None:
    assert _said(text, tool(service)) == said


def dashboards(*boards: Any) -> list[str]:
    files = [File(f"grafana/dashboards/{n}.json", json.dumps(one)) for n, one in enumerate(boards)]
    return [one.said for one in check_dashboards([SOURCES, *files])]


def test_a_dashboard_in_order_is_fine() -> None:
    assert dashboards(BOARD) == [""]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"uid": ""}, "uid '' is not 1 to 40 letters, digits, - or _"),
        ({"title": " "}, "it has no title"),
        ({"panels": [PANEL, {"id": 2, "panels": [PANEL]}]}, "2 panels have the id 1"),
        ({"panels": [{"title": "New"}]}, "1 panels have the id None"),
        (
            {"panels": [{"id": 1, "title": "A", "targets": [{"datasource": {"uid": "mimir"}}]}]},
            "panel 'A' asks the datasource 'mimir', which is not provisioned",
        ),
    ],
)
def test_a_dashboard_that_grafana_would_not_show_is_found(change: dict[str, Any], said: str) -> None:
    assert dashboards(BOARD | change) == [said]


def test_two_dashboards_with_one_uid_and_one_that_is_no_json_are_found() -> None:
    assert dashboards(BOARD, BOARD) == ["uid 'tidegate-app' is another dashboard's too"] * 2
    assert dashboards([]) == ["it is no JSON object"]
    (broken,) = check_dashboards([File("grafana/dashboards/a.json", "{")])
    assert broken.said.startswith("it is no JSON: ")


FINE, SKIPPED, WRONG = (Problem("loki", "loki -verify-config", ok, "words") for ok in (True, None, False))
NOT_YET, MISSING = (Dead("up", ("a.yml A",), "node", "why", not_yet=known) for known in (True, False))


@pytest.mark.parametrize(
    ("found", "ok"),
    [
        (Checked({"a": [FINE, SKIPPED]}, [FINE], [], [NOT_YET]), True),
        (Checked({"a": [FINE], "b": [WRONG]}, [], [], []), False),
        (Checked({}, [WRONG], [], []), False),
        (Checked({}, [], [Fault("A", "why")], []), False),
        (Checked({}, [], [], [NOT_YET, MISSING]), False),
    ],
)
def test_only_what_is_wrong_is_wrong(found: Checked, ok: bool) -> None:
    assert found.ok is ok
    assert json.loads(json.dumps(found.document()))["ok"] is ok


def test_what_was_skipped_and_what_is_not_there_yet_is_shown_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    show(Console(), Checked({"10.0.0.1": [FINE, SKIPPED]}, [], [], [NOT_YET], ["prometheus"]))
    shown = capsys.readouterr().out
    assert "skipped" in shown
    assert "Not there yet, and that may be so" in shown
    assert "prometheus does not run" in shown
    assert "nothing is wrong" in shown


def test_of_many_places_that_name_a_series_a_few_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    show(Console(), Checked({}, [], [], [Dead("up", tuple(f"a.yml A{n}" for n in range(9)), "node", "why")]))
    assert "a.yml A0, a.yml A1, a.yml A2 and 6 more" in capsys.readouterr().out


def test_what_is_wrong_is_shown_with_where_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    show(Console(), Checked({"10.0.0.1": [WRONG]}, [WRONG], [Fault("DiskFull", "it is not loaded")], [MISSING]))
    shown = capsys.readouterr().out
    for words in ("WRONG", "DiskFull", "it is not loaded", "Series that nobody tells", "a.yml A", "node"):
        assert words in shown
    assert "nothing is wrong" not in shown

"""The collector of logs, on every server: Alloy's or Promtail's configuration, with the same meaning. Pure.

Containers' logs are read through the engine's API, not from /var/lib/docker/containers (Promtail v3.6.11, Alloy v1.18):

- Engine: the position is the second of the last line read (promtail targets/docker/target.go:268, alloy source/docker/
  tailer.go:346), and the engine searches all rotated files from there. A collector that was away for several rotations
  misses nothing; some lines of that one second come twice, with the time and text they had, and Loki keeps one.
- File: the position is an offset in a file name. Where the file was rotated meanwhile, what was unread of the old one is
  lost, and of the new one either nothing or what is before that offset (promtail targets/file/tailer.go:59-71, alloy
  source/file/tailer.go:140-155). Promtail cannot find files by containers at all (targets/manager.go:85-113).

Discovery lists stopped containers too, which the engine leaves out unless asked for a status (moby daemon/list.go:280):
else the last lines of one that stops while the collector is away, or behind, stay unread. Alloy knows a position by all
labels of its target (source/docker/docker.go:225), so those that change when a container stops, its address above all,
are removed before. Promtail reads the last second of a stopped container anew at every refresh (targets/docker/
target_group.go:109-113), for which the engine decodes its whole log (0.7 s of a core for 50 MB): so it refreshes seldom.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

from monitoring.alloy_syntax import Block, Ref, text
from monitoring.files import MOUNT, File
from monitoring.inventory import GATE_PORT
from ops.names import LABEL_APP, LABEL_PROCESS, LABEL_RELEASE, LABEL_SLOT

DATA = "/data"  # positions: a volume, or a restart reads everything again
ENGINE = "unix:///var/run/docker.sock"
PORTS = {"alloy": 12345, "promtail": 9080}
HOST_LOGS = "/var/log/host"  # where the server's /var/log is mounted
STATES = ["created", "restarting", "running", "removing", "paused", "exited", "dead"]
REFRESH = {"alloy": "5s", "promtail": "30s"}  # a container that is gone sooner may stay unread
RETRY = {"least": "500ms", "most": "30s"}  # for ever: what waits is kept by the engine's own files
BATCH = 128 * 1024  # what a collector killed during an outage of Loki may lose
LONGEST = 500  # lines of one entry

# Lines that belong to the one before: indented, empty, closing brackets, causes, and the last line of a traceback.
# "Traceback" begins an entry: it comes alone when a program crashes, and must not get the time of a line long before.
FOLLOWING = (
    r"^([ \t)\]}]|Caused by: |During handling of the above exception|The above exception was"
    r"|(?:[A-Za-z_]\w*\.)*[A-Z]\w+(?:Error|Exception|Warning|Interrupt|Exit|Iteration|Group)(?:: |$))"
)
MARK = r"\x1f"  # marks them, for RE2 has no "does not begin with"; gone before anything is sent
LEVEL = "level || severity || levelname"

_META = "__meta_docker_container_"
_LABELS = {"app": LABEL_APP, "process": LABEL_PROCESS, "slot": LABEL_SLOT, "release": LABEL_RELEASE}
_COMPOSE = "label_com_docker_compose_"
_FILES = f"{HOST_LOGS}/{{syslog,messages,auth.log,secure,kern.log,daemon.log}}"

Table = dict[str, Any]


@dataclass(frozen=True)
class Collector:
    """What a server's collector is told."""

    host: str  # the label
    push: str  # where Loki takes lines
    journal: bool = True  # whether the server keeps its journal on disk; else its log files are read
    engine: str = ENGINE
    refresh: str | None = None


@dataclass(frozen=True)
class Rule:
    """One step of labelling: where all sources match, the target gets the replacement."""

    sources: tuple[str, ...]
    target: str
    regex: str = "(.+)"
    replacement: str = "$1"


def push_address(stack: str | None) -> str:
    """Return where lines go: to Loki beside us, or through the gate of the server with this private address."""
    path = "loki/api/v1/push"
    return f"https://{f'[{stack}]' if ':' in stack else stack}:{GATE_PORT}/{path}" if stack else f"http://loki:3100/{path}"


def alloy(told: Collector) -> File:
    """Return Alloy's configuration."""
    return File("collector/config.alloy", "// Written by `inv monitoring.up`.\n\n" + text(_blocks(told)))


def promtail(told: Collector) -> File:
    """Return Promtail's configuration."""
    document = yaml.safe_dump(_document(told), sort_keys=False, width=130)
    return File("collector/promtail.yaml", "# Written by `inv monitoring.up`.\n" + document)


def _rules(host: str) -> list[Rule]:
    """Name containers as cAdvisor's series are named, so that a container goes on over releases."""
    project, service = f"{_META}{_COMPOSE}project", f"{_META}{_COMPOSE}service"
    return [
        Rule((), "host", "(.*)", host),
        Rule((), "job", "(.*)", "containers"),
        Rule((f"{_META}name",), "container", "/(.+)"),
        Rule((project, service), "container", "(.+);(.+)", "$1-$2"),
        Rule((project,), "app", "(.+)-services"),
        *(Rule((f"{_META}label_{label}".replace(".", "_"),), name) for name, label in _LABELS.items()),
        Rule(("app", "process"), "container", "(.+);(.+)", "$1-$2"),
        Rule((f"{_META}id",), "container_id"),  # until lines are joined: those of two containers must not be
    ]


_STREAM = Rule((f"{_META}log_stream",), "stream")  # until then too
_UNIT = Rule(("__journal__systemd_unit",), "unit")
_PRIORITY = Rule(("__journal_priority_keyword",), "level")


def _document(told: Collector) -> Table:
    tls = {f"{name}_file": f"{MOUNT}/tls/{name}.pem" for name in ("ca", "cert", "key")}
    return {
        "server": {"http_listen_port": PORTS["promtail"], "grpc_listen_port": 0, "log_level": "warn"},
        "positions": {"filename": f"{DATA}/positions.yaml"},
        "clients": [
            {
                "url": told.push,
                "batchsize": BATCH,
                "backoff_config": {"min_period": RETRY["least"], "max_period": RETRY["most"], "max_retries": 0},
                **({"tls_config": tls} if told.push.startswith("https:") else {}),
            }
        ],
        "scrape_configs": [
            _of_containers(told),
            _host(told),
        ],
    }


_MARKED = f'{{{{ "{MARK}" }}}}{{{{ .Value }}}}'


def _of_containers(told: Collector) -> Table:
    return {
        "job_name": "containers",
        "docker_sd_configs": [
            {
                "host": told.engine,
                "refresh_interval": told.refresh or REFRESH["promtail"],
                "filters": [{"name": "status", "values": STATES}],
            }
        ],
        "relabel_configs": [_relabel(rule) for rule in (*_rules(told.host), _STREAM)],
        "pipeline_stages": [
            {"replace": {"expression": FOLLOWING, "replace": _MARKED}},
            {"multiline": {"firstline": f"^[^{MARK}]", "max_wait_time": "1s", "max_lines": LONGEST}},
            {"replace": {"expression": f"(?m)^({MARK})", "replace": ""}},
            {"json": {"expressions": {"level": LEVEL}}},
            {"template": {"source": "level", "template": "{{ ToLower .Value }}"}},
            {"structured_metadata": {"level": None, "stream": None}},
            {"labeldrop": ["container_id"]},
        ],
    }


def _relabel(rule: Rule) -> Table:
    sources = {"source_labels": list(rule.sources), "regex": rule.regex} if rule.sources else {}
    return {**sources, "target_label": rule.target, "replacement": rule.replacement}


def _host(told: Collector) -> Table:
    labels = {"host": told.host, "job": "host"}
    if told.journal:
        return {
            "job_name": "host",
            "journal": {"path": f"{HOST_LOGS}/journal", "max_age": "12h", "labels": labels},
            "relabel_configs": [_relabel(_UNIT), _relabel(_PRIORITY)],
            "pipeline_stages": [{"structured_metadata": {"unit": None, "level": None}}],
        }
    return {
        "job_name": "host",
        "static_configs": [{"targets": ["localhost"], "labels": {**labels, "__path__": _FILES}}],
        "pipeline_stages": [{"structured_metadata": {"filename": None}}],
    }


def _blocks(told: Collector) -> list[Block]:
    return [*_containers(told), *(_journal(told) if told.journal else _files(told)), _write(told)]


def _containers(told: Collector) -> list[Block]:
    keep = "|".join([f"{_META}id", *dict.fromkeys(rule.target for rule in _rules(told.host))])
    stable = Block("rule", {"regex": keep, "action": "labelkeep"})
    found, named = "discovery.docker.engine.targets", "discovery.relabel.containers.output"
    return [
        Block('logging', {"level": "warn"}),
        Block('discovery.docker "engine"', {"host": told.engine, "refresh_interval": told.refresh or REFRESH["alloy"]},
              (Block("filter", {"name": "status", "values": STATES}),)),
        Block('discovery.relabel "containers"', {"targets": Ref(found)}, (*map(_rule, _rules(told.host)), stable)),
        Block('discovery.relabel "stream"', {"targets": Ref("[]")}, (_rule(_STREAM),)),
        Block('loki.source.docker "containers"', {
            "host": told.engine, "targets": Ref(named), "relabel_rules": Ref("discovery.relabel.stream.rules"),
            "forward_to": [Ref("loki.process.containers.receiver")],
        }),
        Block('loki.process "containers"', {"forward_to": [Ref("loki.write.loki.receiver")]}, (
            Block("stage.replace", {"expression": FOLLOWING, "replace": _MARKED}),
            Block("stage.multiline", {"firstline": f"^[^{MARK}]", "max_wait_time": "1s", "max_lines": LONGEST}),
            Block("stage.replace", {"expression": f"(?m)^({MARK})", "replace": ""}),
            Block("stage.json", {"expressions": {"level": LEVEL}}),
            Block("stage.template", {"source": "level", "template": "{{ ToLower .Value }}"}),
            Block("stage.structured_metadata", {"values": {"level": "", "stream": ""}}),
            Block("stage.label_drop", {"values": ["container_id"]}),
        )),
    ]  # fmt: skip


def _journal(told: Collector) -> list[Block]:
    labels = {"host": told.host, "job": "host"}
    return [
        Block('discovery.relabel "journal"', {"targets": Ref("[]")}, (_rule(_UNIT), _rule(_PRIORITY))),
        Block('loki.source.journal "host"', {
            "path": f"{HOST_LOGS}/journal", "max_age": "12h", "labels": labels,
            "relabel_rules": Ref("discovery.relabel.journal.rules"), "forward_to": [Ref("loki.process.host.receiver")],
        }),
        Block('loki.process "host"', {"forward_to": [Ref("loki.write.loki.receiver")]},
              (Block("stage.structured_metadata", {"values": {"unit": "", "level": ""}}),)),
    ]  # fmt: skip


def _files(told: Collector) -> list[Block]:
    return [
        Block('local.file_match "host"', {"path_targets": [{"__path__": _FILES, "host": told.host, "job": "host"}]}),
        Block('loki.source.file "host"', {
            "targets": Ref("local.file_match.host.targets"), "forward_to": [Ref("loki.process.host.receiver")],
        }),
        Block('loki.process "host"', {"forward_to": [Ref("loki.write.loki.receiver")]},
              (Block("stage.structured_metadata", {"values": {"filename": ""}}),)),
    ]  # fmt: skip


def _write(told: Collector) -> Block:
    tls = Block("tls_config", {f"{name}_file": f"{MOUNT}/tls/{name}.pem" for name in ("ca", "cert", "key")})
    endpoint = {
        "url": told.push, "batch_size": f"{BATCH // 1024}KiB",
        "min_backoff_period": RETRY["least"], "max_backoff_period": RETRY["most"], "max_backoff_retries": 0,
    }  # fmt: skip
    inner = (tls,) if told.push.startswith("https:") else ()
    return Block('loki.write "loki"', {}, (Block("endpoint", endpoint, inner),))


def _rule(rule: Rule) -> Block:
    sources = {"source_labels": list(rule.sources), "regex": rule.regex} if rule.sources else {}
    return Block("rule", {**sources, "target_label": rule.target, "replacement": rule.replacement})

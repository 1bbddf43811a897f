"""Hostile text through every configuration value: refused with a ConfigError, or carried literally."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ops.config import ConfigProblems, Environment, load

LITERAL = re.compile(r"[^\0]*", re.DOTALL)
WORD = re.compile(r"[A-Za-z0-9_.:/@%=?&~+,-]*")  # nothing that a shell, nginx or ssh would obey, not even unquoted
PATH = re.compile(r"[^\x00-\x1f\x7f]*")
Get = Callable[[Environment], object]


def key(values: dict[str, object]) -> object:
    return next(iter(values))


SITES: dict[str, tuple[str, Get, re.Pattern[str]]] = {
    "app.name": ("[app]\nname = {}", lambda e: e.app.name, WORD),
    "app.image": ("[app]\nimage = {}", lambda e: e.app.image, WORD),
    "app.environment value": ("[app]\nenvironment = {{ A = {} }}", lambda e: e.app.environment["A"], LITERAL),
    "app.environment key": ('[app]\nenvironment = {{ {} = "1" }}', lambda e: key({**e.app.environment}), WORD),
    "app.secrets": ("[app]\nsecrets = [{}]", lambda e: e.app.secrets[0], WORD),
    "app.volumes key": ('[app]\nvolumes = {{ {} = "/data" }}', lambda e: key({**e.app.volumes}), WORD),
    "app.volumes value": ("[app]\nvolumes = {{ data = {} }}", lambda e: e.app.volumes["data"], PATH),
    "app.memory": ("[app]\nmemory = {}", lambda e: e.app.memory, WORD),
    "app.command": ("[app]\ncommand = [{}]", lambda e: e.app.command[0], LITERAL),
    "app.health.path": ("[app]\nhealth.path = {}", lambda e: e.app.health.path, WORD),
    "app.migrate.command": (
        "[app]\nmigrate.command = [{}]",
        lambda e: e.app.migrate and e.app.migrate.command[0],
        LITERAL,
    ),
    "app.processes key": ('[app]\nprocesses.{}.command = ["a"]', lambda e: key({**e.app.processes}), WORD),
    "app.processes.command": ("[app]\nprocesses.w.command = [{}]", lambda e: e.app.processes["w"].command[0], LITERAL),
    "app.edge.body_size": ("[app]\nedge.body_size = {}", lambda e: e.app.edge.body_size, WORD),
    "app.edge.timeout": ("[app]\nedge.timeout = {}", lambda e: None, WORD),
    "app.context": ("[app]\ncontext = {}", lambda e: None, PATH),
    "domain": ("[environments.production]\ndomain = {}", lambda e: e.domains[0], WORD),
    "hosts text": ("[environments.production]\nhosts = [{}]", lambda e: e.hosts[0].address, WORD),
    "hosts.address": ("[environments.production]\nhosts = [{{ address = {} }}]", lambda e: e.hosts[0].address, WORD),
    "hosts.user": (
        '[environments.production]\nhosts = [{{ address = "h", user = {} }}]',
        lambda e: e.hosts[0].user,
        WORD,
    ),
    "hosts.url": ('[environments.production]\nhosts = [{{ address = "h", url = {} }}]', lambda e: e.hosts[0].url, WORD),
    "hosts.identity": (
        '[environments.production]\nhosts = [{{ address = "h", identity = {} }}]',
        lambda e: str(e.hosts[0].identity),
        PATH,
    ),
    "known_hosts": ("[environments.production]\nknown_hosts = {}", lambda e: str(e.known_hosts), PATH),
    "tls.key": (
        '[environments.production]\ntls = {{ certificate = "Dockerfile", key = {} }}',
        lambda e: e.tls and e.tls.key,
        WORD,
    ),
    "notifications.urls": ("[notifications]\nurls = [{}]", lambda e: e.notifications.urls[0], WORD),
    "secrets key": ('[secrets.{}]\ncommand = ["a"]', lambda e: key({**e.secrets}), WORD),
    "secrets.command": ("[secrets.A]\ncommand = [{}]", lambda e: e.secrets["A"].command[0], LITERAL),
}
BASE = {
    "app": {"name": '"blog"', "port": "3000"},
    "environments.production": {"domain": '"a.example"', "hosts": '["h"]'},
}
NASTY = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    st.text("a-/.;{}$()`'\" \n\r\t\\@:%#*~|&<>\0ü=", max_size=12),
    st.builds(
        "{}{}".format,
        st.sampled_from(["blog", "/health", "a.b", "10m", "h", "u@h", "http://h", "/data", "A", "h:22"]),
        st.sampled_from([";", "\n", " ", "$(id)", "`id`", "{", "}", '"', "'", "\\", "\0", "#", "é", "\x7f", "\u2028", ";}"]),
    ),
)


def toml(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def document(site: str, value: str) -> str:
    """A valid configuration, but for the one value."""
    header, _, line = SITES[site][0].format(toml(value)).partition("\n")
    section = header.strip("[]")
    own = re.split(r"[ .]", line)[0]
    tables = [
        f"[{name}]\n"
        + "".join(f"{k} = {v}\n" for k, v in keys.items() if (name, k) != (section, own))
        + (f"{line}\n" if name == section else "")
        for name, keys in BASE.items()
    ]
    return "".join(tables) + ("" if section in BASE else f"{header}\n{line}\n")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hostile")
    (path / "Dockerfile").touch()
    return path


def check(folder: Path, site: str, value: str) -> None:
    _, get, safe = SITES[site]
    (folder / "ops.toml").write_text(document(site, value))
    try:
        environment = load(folder / "ops.toml", {"HOME": str(folder)}).environment("production")
    except ConfigProblems as error:
        refused(error)
    else:
        carried(folder, get(environment), value, safe)


def refused(error: ConfigProblems) -> None:
    assert error.problems
    assert all(line.isprintable() for line in str(error).split("\n"))


def carried(folder: Path, got: object, value: str, safe: re.Pattern[str]) -> None:
    text = value if got is None else str(got)
    assert safe.fullmatch(text)
    assert not text.startswith("-") or safe is LITERAL
    assert text in forms(folder, value)


def forms(folder: Path, value: str) -> set[str]:
    """What a value may be carried as: itself, in small letters, tidied or made absolute; parts of a host."""
    home = str(Path(folder, value[2:])) if value.startswith("~") else value
    tidy = {value, value.lower(), value.rstrip("/"), str(Path(folder, value)), home}
    return tidy | set(re.split(r"@|:|\[|\]", value)) | {value.rpartition("@")[2].strip("[]")}


@pytest.mark.parametrize("site", SITES)
@settings(max_examples=20, deadline=None)
@example("")
@example("-oProxyCommand=touch /tmp/owned")
@example("--privileged")
@example("$(touch /tmp/owned)")
@example("a b")
@example("blog\n")
@example("/health\n")
@example("a\0b")
@example("bücher")
@example("/health; return 200; #")
@example('x"; } location / { root /; ')
@given(value=NASTY)
def test_hostile_text_is_refused_or_carried_literally(folder: Path, site: str, value: str) -> None:
    check(folder, site, value)


@pytest.mark.parametrize("site", [site for site, (_, _, safe) in SITES.items() if safe is LITERAL])
@settings(max_examples=15, deadline=None)
@given(value=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30))
def test_what_goes_to_a_program_is_never_refused_without_need(folder: Path, site: str, value: str) -> None:
    (folder / "ops.toml").write_text(document(site, value))
    assert SITES[site][1](load(folder / "ops.toml", {}).environment("production")) == value

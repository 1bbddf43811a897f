from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ops.config import ConfigProblems, HostAddress, Project, load
from ops.config_explain import explain
from ops.errors import ConfigError
from ops.secret import MASK

MINIMAL = '[app]\nname = "blog"\nport = 3000\n'
PRODUCTION = '[environments.production]\ndomain = "blog.example.com"\nhosts = ["deploy@203.0.113.10"]\n'
SANDBOX = """
[environments.sandbox]
domain = "blog.localhost"
known_hosts = ".tidegate/sandbox/known_hosts"
[[environments.sandbox.hosts]]
address = "127.0.0.1"
port = 40022
user = "deploy"
identity = ".tidegate/sandbox/id_ed25519"
url = "http://127.0.0.1:40080"
"""
Load = Callable[..., Project]


@pytest.fixture
def loaded(tmp_path: Path) -> Load:
    (tmp_path / "Dockerfile").touch()

    def load_text(text: str, generated: str = "", **environ: str) -> Project:
        if generated:
            (tmp_path / ".tidegate/environments").mkdir(parents=True)
            (tmp_path / ".tidegate/environments/sandbox.toml").write_text(generated)
        (tmp_path / "ops.toml").write_text(text)
        return load(tmp_path / "ops.toml", environ)

    return load_text


def test_a_minimal_file_gets_the_defaults(loaded: Load, tmp_path: Path) -> None:
    environment = loaded(MINIMAL + PRODUCTION).environment("production")
    app = environment.app
    assert (app.name, app.port, app.keep_releases, app.image) == ("blog", 3000, 5, None)
    assert (app.context, app.dockerfile) == (tmp_path, tmp_path / "Dockerfile")
    assert (app.health.path, app.health.successes, app.health.interval, app.health.timeout) == ("/health", 3, 0.05, 60)
    assert (app.drain.grace, app.drain.connections, app.drain.idle) == (10, 30, 5)
    assert (app.edge.body_size, app.edge.gzip, app.prober.interval, app.prober.budget) == ("10m", True, 0.05, 0)
    assert (environment.domains, environment.approve) == (("blog.example.com",), False)
    assert environment.known_hosts == tmp_path / "known_hosts"
    assert environment.project_root == tmp_path


def test_hosts_are_written_as_text_or_as_tables(loaded: Load, tmp_path: Path) -> None:
    hosts = """["web", "deploy@203.0.113.10:2222", "2001:db8::1", "root@[2001:db8::2]:22", "[fe80::1%eth0]:23",
        { address = "203.0.113.11", user = "deploy", port = 22, identity = "~/key" },
        { address = "203.0.113.12", identity = "keys/id" }]"""
    text = MINIMAL + f'[environments.x]\ndomain = "a.b"\nhosts = {hosts}\n'
    found = loaded(text, HOME="/home/ada").environment("x").hosts
    assert found[0] == HostAddress(address="web")
    assert found[1] == HostAddress(user="deploy", address="203.0.113.10", port=2222)
    assert found[3] == HostAddress(user="root", address="2001:db8::2", port=22)
    assert found[5].identity == Path("/home/ada/key")
    assert found[6].identity == tmp_path / "keys/id"
    assert [host.name for host in found[:6]] == [
        "web",
        "deploy@203.0.113.10:2222",
        "2001:db8::1",
        "root@2001:db8::2",
        "[fe80::1%eth0]:23",
        "deploy@203.0.113.11",
    ]


def test_environments_override_tables_key_by_key_and_replace_the_rest(loaded: Load) -> None:
    text = """
    [app]
    name = "blog"
    port = 3000
    command = ["a", "b"]
    environment = { KEEP = "1", CHANGE = "old" }
    health = { path = "/up", successes = 5 }
    [environments.production]
    domains = ["a.example.com"]
    hosts = ["h"]
    [environments.production.app]
    command = ["c"]
    environment = { CHANGE = "new", ADD = "2" }
    health = { successes = 7 }
    [environments.plain]
    domain = "b.example.com"
    hosts = ["h"]
    """
    project = loaded(text)
    app = project.environment("production").app
    assert app.command == ("c",)
    assert app.environment == {"KEEP": "1", "CHANGE": "new", "ADD": "2"}
    assert (app.health.path, app.health.successes) == ("/up", 7)
    assert project.environment("plain").app == project.app


def test_an_image_in_an_environment_takes_the_place_of_the_build(loaded: Load) -> None:
    text = MINIMAL + 'context = "."\n' + PRODUCTION + '[environments.production.app]\nimage = "r.example.com:5000/a/b"\n'
    assert loaded(text).environment("production").app.image == "r.example.com:5000/a/b"


def test_a_build_in_an_environment_takes_the_place_of_the_image(loaded: Load, tmp_path: Path) -> None:
    text = MINIMAL + 'image = "r/a"\n' + PRODUCTION + '[environments.production.app]\ndockerfile = "Dockerfile"\n'
    app = loaded(text).environment("production").app
    assert (app.image, app.dockerfile) == (None, tmp_path / "Dockerfile")


def test_a_ready_image_needs_no_dockerfile(loaded: Load, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").unlink()
    assert loaded(MINIMAL + 'image = "team/blog"\n').app.image == "team/blog"


def test_a_generated_environment_is_there_and_the_default(loaded: Load, tmp_path: Path) -> None:
    project = loaded(MINIMAL + PRODUCTION, SANDBOX)
    sandbox = project.environment()
    assert project.environments == ("production", "sandbox")
    assert (sandbox.name, sandbox.domains) == ("sandbox", ("blog.localhost",))
    assert sandbox.hosts[0].name == "deploy@127.0.0.1:40022"
    assert sandbox.hosts[0].url == "http://127.0.0.1:40080"
    assert sandbox.known_hosts == tmp_path / ".tidegate/sandbox/known_hosts"


def test_ops_toml_wins_over_a_generated_environment_except_for_its_hosts(loaded: Load) -> None:
    own = '[environments.sandbox]\ndomains = ["x.localhost"]\nhosts = ["elsewhere"]\napp.keep_releases = 2\n'
    sandbox = loaded(MINIMAL + own, SANDBOX).environment("sandbox")
    assert sandbox.domains == ("x.localhost",)
    assert sandbox.hosts[0].address == "127.0.0.1"
    assert sandbox.app.keep_releases == 2


def test_overrides_for_a_sandbox_that_is_not_up_are_no_error_but_it_is_not_there(loaded: Load) -> None:
    project = loaded(MINIMAL + "[environments.sandbox.app]\nkeep_releases = 2\n")
    with pytest.raises(ConfigError, match=r"inv sandbox\.up"):
        project.environment("sandbox")


def test_an_unknown_environment_is_refused_with_the_known_ones(loaded: Load) -> None:
    with pytest.raises(ConfigError, match="known are production") as caught:
        loaded(MINIMAL + PRODUCTION).environment("produktion\x1b[0m")
    assert "\x1b" not in str(caught.value)


def test_secrets_and_notifications_of_an_environment_go_over_the_common_ones(loaded: Load) -> None:
    text = MINIMAL + PRODUCTION + '[environments.production.notifications]\non = ["failure"]\n'
    text += '[environments.production.secrets.A]\ncommand = ["b"]\n[secrets]\nA.command = ["a"]\nB.command = ["b"]\n'
    environment = loaded(text + '[notifications]\nurls = ["SLACK"]\n').environment("production")
    assert (environment.notifications.urls, environment.notifications.on) == (("SLACK",), ("failure",))
    assert {name: source.command for name, source in environment.secrets.items()} == {"A": ("b",), "B": ("b",)}


def test_every_secret_of_an_environment_is_named_once(loaded: Load, tmp_path: Path) -> None:
    (tmp_path / "c.pem").touch()
    text = MINIMAL + 'secrets = ["A", "B"]\n' + PRODUCTION + 'tls = { certificate = "c.pem", key = "B" }\n'
    environment = loaded(text + '[notifications]\nurls = ["SLACK"]\n').environment("production")
    assert environment.secret_names == ("A", "B", "SLACK")


def test_each_value_is_explained_with_its_source(loaded: Load) -> None:
    text = MINIMAL + 'secrets = ["A", "B"]\nhealth.timeout = "90s"\nenvironment = { X = "1" }\n' + PRODUCTION
    text += '[environments.production.app]\nenvironment = { Y = "2" }\n[secrets.B]\ncommand = ["false", "a b"]\n'
    rows = {key: (value, source) for key, value, source in explain(loaded(text, A="value-of-a"), "production")}
    assert rows["app.port"] == ("3000", "ops.toml [app]")
    assert rows["app.health.timeout"] == ('"90s"', "ops.toml [app]")
    assert rows["app.health.interval"] == ('"50ms"', "default")
    assert rows["app.dockerfile"] == ('"Dockerfile"', "default")
    assert rows["app.environment.X"] == ('"1"', "ops.toml [app]")
    assert rows["app.environment.Y"] == ('"2"', "ops.toml [environments.production.app]")
    assert rows["domains"] == ('["blog.example.com"]', "ops.toml [environments.production]")
    assert rows["hosts[0].address"] == ('"203.0.113.10"', "ops.toml [environments.production]")
    assert "hosts[0].port" not in rows
    assert rows["approve"] == ("false", "default")
    assert rows["secrets.A"] == (MASK, "environment variable A")
    assert rows["secrets.B"] == (MASK, "command \"false 'a b'\"")
    assert "value-of-a" not in str(rows)


def test_generated_values_and_missing_secrets_are_explained(loaded: Load) -> None:
    rows = {key: (value, source) for key, value, source in explain(loaded(MINIMAL + 'secrets = ["A"]', SANDBOX), "sandbox")}
    assert rows["hosts[0].port"] == ("40022", ".tidegate/environments/sandbox.toml")
    assert rows["secrets.A"] == (MASK, "missing: neither the environment nor .env.sandbox has it")


@pytest.mark.parametrize(("mode", "source"), [(0o600, ".env.sandbox"), (0o644, "refused: expected mode 0600")])
def test_a_secret_in_a_file_is_explained(loaded: Load, tmp_path: Path, mode: int, source: str) -> None:
    (tmp_path / ".env.sandbox").write_text("A=1\n")
    (tmp_path / ".env.sandbox").chmod(mode)
    assert source in explain(loaded(MINIMAL + 'secrets = ["A"]', SANDBOX), "sandbox")[-1][2]


def test_environ_and_secrets_do_not_appear_in_the_project_shown(loaded: Load) -> None:
    assert "hunter2" not in repr(loaded(MINIMAL + PRODUCTION, A="hunter2"))


def test_a_byte_order_mark_is_no_error(loaded: Load) -> None:
    assert loaded("\ufeff" + MINIMAL).app.name == "blog"


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigProblems, match="inv init"):
        load(tmp_path / "ops.toml", {})


def test_loading_imports_nothing_heavy() -> None:
    heavy = {"apprise", "docker", "fabric", "rich", "requests", "concurrent.futures"}
    code = "import sys, ops.config, ops.secrets, ops.notify; print(*sys.modules)"
    assert not heavy & set(subprocess.check_output([sys.executable, "-c", code], text=True).split())

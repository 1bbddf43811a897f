from __future__ import annotations

from pathlib import Path

import pytest

from ops.config import ConfigProblems, Problem, load

MINIMAL = '[app]\nname = "blog"\nport = 3000\n'
ENVIRONMENT = '[environments.production]\ndomain = "a.b"\nhosts = ["h"]\n'


def problems(folder: Path, text: str | bytes) -> tuple[Problem, ...]:
    (folder / "Dockerfile").touch()
    (folder / "ops.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigProblems) as caught:
        load(folder / "ops.toml", {})
    return caught.value.problems


@pytest.mark.parametrize(
    ("text", "key", "expected", "found"),
    [
        ("", "port", "a value, it is required", ""),
        ('port = "3000"', "port", "a whole number", '"3000"'),
        ("port = true", "port", "a whole number", "true"),
        ("port = 0", "port", "at least 1", "0"),
        ("port = 65536", "port", "at most 65535", "65536"),
        ("keep_releases = 1", "keep_releases", "at least 2", "1"),
        ("keep_release = 3", "keep_release", "(did you mean keep_releases?)", 'the unknown key "keep_release"'),
        ('context = "nowhere"', "context", "an existing folder", '"nowhere"'),
        ('dockerfile = "Containerfile"', "dockerfile", "an existing file", '"Containerfile"'),
        ('image = "a/b"\ncontext = "."', "image", "either image or context and dockerfile", "context as well"),
        ('image = "a/b:latest"', "image", "without tag", '"a/b:latest"'),
        ('memory = "lots"', "memory", "a size such as", '"lots"'),
        ('memory = "5m"', "memory", 'at least "6m"', '"5m"'),
        ("environment = { A = 1 }", "environment.A", "text in quotes", "1"),
        ('environment = { "A B" = "1" }', 'environment."A B"', "the name of an environment variable", 'the key "A B"'),
        ('environment.TIDEGATE_X = "1"', "environment.TIDEGATE_X", "reserved", 'the key "TIDEGATE_X"'),
        ('environment.A = "1"\nsecrets = ["A"]', "secrets", "not in environment as well (A)", "not shown"),
        ('secrets = ["A", "A"]', "secrets", "each one once (twice: A)", "not shown"),
        ('secrets = ["tidegate_x"]', "secrets[0]", "reserved", "not shown"),
        ('volumes.data = "app/data"', "volumes.data", "an absolute path", '"app/data"'),
        ('volumes.data = "/"', "volumes.data", "an absolute path", '"/"'),
        ('volumes = { a = "/x", b = "/x/" }', "volumes", "each one once (twice: /x)", "a table"),
        ('health.path = "health"', "health.path", 'starts with "/"', '"health"'),
        ('health.interval = "soon"', "health.interval", "a duration such as", '"soon"'),
        ('health.interval = "0ms"', "health.interval", "at least 0.005", '"0ms"'),
        ("health.interval = inf", "health.interval", "a duration such as", "inf"),
        ('health.timeout = "100ms"', "health.timeout", "at least successes times interval = 150ms", '"100ms"'),
        ('drain.grace = "-1s"', "drain.grace", "a duration such as", '"-1s"'),
        ("migrate.command = []", "migrate.command", "at least 1 in the list", "a list of 0"),
        ('migrate.command = "run me"', "migrate.command", "a list", '"run me"'),
        ('migrate = { command = ["a"], on = "all" }', "migrate.on", "'first' or 'each'", '"all"'),
        ('processes.web.command = ["a"]', "processes.web", "other than web and migrate", 'the key "web"'),
        ("processes.w = {}", "processes.w.command", "it is required", ""),
        ('edge.body_size = "10 m"', "edge.body_size", "a size such as", '"10 m"'),
        ('edge.gzip = "yes"', "edge.gzip", "true or false", '"yes"'),
        ("prober.budget = -1", "prober.budget", "at least 0", "-1"),
        ("health = 3", "health", "a table", "3"),
    ],
)
def test_a_mistake_in_app_is_named_with_what_was_expected_and_found(
    tmp_path: Path, text: str, key: str, expected: str, found: str
) -> None:
    port = "" if key == "port" else "port = 3000\n"
    (problem,) = problems(tmp_path, f'[app]\nname = "blog"\n{port}{text}\n{ENVIRONMENT}')
    assert (problem.file, problem.key) == ("ops.toml", f"app.{key}")
    assert expected in problem.expected
    assert found in problem.found


@pytest.mark.parametrize(
    ("text", "key", "expected", "found"),
    [
        ('hosts = ["h"]', "domain", "it is required", ""),
        ('domain = "a.b"', "hosts", "it is required", ""),
        ('domain = "a.b"\nhosts = []', "hosts", "at least 1", "a list of 0"),
        ('domain = "a.b"\nhosts = "h"', "hosts", "a list", '"h"'),
        ('domain = "*.b"\nhosts = ["h"]', "domain", "wildcards are not supported", '"*.b"'),
        ('domain = "bücher.de"\nhosts = ["h"]', "domain", "xn--bcher-kva.de", '"bücher.de"'),
        ('domains = ["a.b", "a b"]\nhosts = ["h"]', "domains[1]", "a host name", '"a b"'),
        ('domains = ["a.b", "A.b"]\nhosts = ["h"]', "domains", "each one once (twice: a.b)", "a list of 2"),
        ('domain = "a.b"\ndomains = ["c.d"]\nhosts = ["h"]', "domain", "either domain or domains", "domains as well"),
        ('domain = "a.b"\nhosts = ["h", "-oProxyCommand=id"]', "hosts[1].address", "hyphen", '"-oProxyCommand=id"'),
        ('domain = "a.b"\nhosts = ["-l@h"]', "hosts[0].user", "a user name", '"-l"'),
        ('domain = "a.b"\nhosts = ["h:99999"]', "hosts[0].port", "at most 65535", "99999"),
        ('domain = "a.b"\nhosts = ["a:b:c"]', "hosts[0]", "a server such as", '"a:b:c"'),
        ('domain = "a.b"\nhosts = ["u@h", "h:22"]', "hosts", "each one once (twice: h port 22)", "a list of 2"),
        ('domain = "a.b"\nhosts = [{ address = "h", prt = 1 }]', "hosts[0].prt", "(did you mean port?)", "unknown"),
        ('domain = "a.b"\nhosts = [3]', "hosts[0]", "a table", "3"),
        ('domain = "a.b"\nhosts = ["h"]\naprove = true', "aprove", "(did you mean approve?)", "unknown"),
        ('domain = "a.b"\nhosts = ["h"]\nproject_root = "/"', "project_root", "one of app, approve", "unknown"),
        ('domain = "a.b"\nhosts = ["h"]\napp.port = "x"', "app.port", "a whole number", '"x"'),
        ('domain = "a.b"\nhosts = ["h"]\napp.health.pth = "/"', "app.health.pth", "(did you mean path?)", "unknown"),
        ('domain = "a.b"\nhosts = ["h"]\ntls.certificate = "c.pem"\ntls.key = "K"', "tls.certificate", "a", '"c.pem"'),
    ],
)
def test_a_mistake_in_an_environment_is_named(tmp_path: Path, text: str, key: str, expected: str, found: str) -> None:
    (problem,) = problems(tmp_path, f"{MINIMAL}[environments.production]\n{text}\n")
    assert (problem.file, problem.key) == ("ops.toml", f"environments.production.{key}")
    assert expected in problem.expected
    assert found in problem.found


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("apps = 1", "apps"),
        ("app = 1", "app"),
        ("environments = 1", "environments"),
        ("environments.production = 1", "environments.production"),
        ('environments.Prod = { domain = "a.b", hosts = ["h"] }', "environments.Prod"),
        ('environments."a/../b" = { domain = "a.b", hosts = ["h"] }', 'environments."a/../b"'),
        ('notifications.urls = "X"', "notifications.urls"),
        ('notifications.on = ["always"]', "notifications.on[0]"),
        ("secrets.A.command = []", "secrets.A.command"),
        ("secrets.A.file = 'x'", "secrets.A.file"),
    ],
)
def test_a_mistake_elsewhere_is_named(tmp_path: Path, text: str, key: str) -> None:
    assert key in [problem.key for problem in problems(tmp_path, f"{text}\n{'' if key == 'app' else MINIMAL}")]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (b"[app]\nname = blog\n", "line 2, column 8"),
        (b"[app\n", "line 1"),
        (b'[app]\nname = "', "its end"),
        (b"[app]\nport = 1\nport = 2\n", "line 3"),
        (b'[app]\nname = "\xff"\n', "line 2"),
        (b"a = " + b"[" * 100_000, ""),
    ],
)
def test_a_file_that_is_not_toml_gives_the_line(tmp_path: Path, text: bytes, where: str) -> None:
    (problem,) = problems(tmp_path, text)
    assert problem.file == "ops.toml"
    assert where in problem.key


def test_all_mistakes_are_listed_at_once_each_where_it_was_written_and_only_once(tmp_path: Path) -> None:
    text = '[app]\nname = "Blog"\nport = "x"\n[environments.a]\ndomain = "a.b"\nhosts = ["h"]\napp.memory = "x"\n'
    text += '[environments.b]\ndomain = "*"\nhosts = ["h"]\n[notifications]\nurls = ["x y"]\n'
    found = problems(tmp_path, text)
    keys = ["app.name", "app.port", "environments.a.app.memory", "environments.b.domain", "notifications.urls[0]"]
    assert sorted(problem.key for problem in found) == keys


def test_the_message_names_file_key_expectation_and_finding(tmp_path: Path) -> None:
    text = MINIMAL.replace("3000", '"x"') + '[environments.p]\ndomain = "a.b"\nhosts = ["h", { address = "i", port = 0 }]\n'
    error = ConfigProblems(problems(tmp_path, text))
    assert error.exit_code == 2
    assert "2 problems in the configuration\n" in str(error)
    assert 'ops.toml: app.port: expected a whole number, found "x"' in str(error)
    assert "ops.toml: environments.p.hosts[1].port: expected at least 1, found 0" in str(error)


def test_a_mistake_in_a_generated_file_names_that_file(tmp_path: Path) -> None:
    folder = tmp_path / ".tidegate/environments"
    folder.mkdir(parents=True)
    (folder / "sandbox.toml").write_text('[environments.sandbox]\ndomain = "a.b"\nhosts = [{ address = "" }]\n')
    (problem,) = problems(tmp_path, MINIMAL)
    assert (problem.file, problem.key) == (
        ".tidegate/environments/sandbox.toml",
        "environments.sandbox.hosts[0].address",
    )
    (folder / "sandbox.toml").write_text("[environments.sand")
    assert problems(tmp_path, MINIMAL)[0].file == ".tidegate/environments/sandbox.toml"


@pytest.mark.parametrize(
    "text",
    [
        'notifications.urls = ["slack://hunter2/hunter2"]\n' + MINIMAL,
        'secrets.KEY = "hunter2"\n' + MINIMAL,
        'secrets = "hunter2"\n' + MINIMAL,
        MINIMAL + 'secrets = "hunter2"\n',
        MINIMAL + 'secrets = ["hunter2 x"]\n',
        MINIMAL + ENVIRONMENT + 'tls = { certificate = "Dockerfile", key = "-----hunter2-----" }\n',
    ],
)
def test_a_secret_written_where_its_name_belongs_is_not_repeated(tmp_path: Path, text: str) -> None:
    assert "hunter2" not in str(ConfigProblems(problems(tmp_path, text)))

"""Values that a shell, nginx, or a careless log line would stumble over, carried to the container and back."""

from __future__ import annotations

import json

import pytest

from tests.integration.project import App

pytestmark = pytest.mark.integration
HOSTILE = {
    "QUOTES": """it's "quoted" `and` \\backslashed\\ """,
    "SUBSTITUTED": "$(touch /tmp/pwned) `touch /tmp/pwned` ${HOME} $HOME %h %%",
    "LINES": "first\nsecond\r\n\tthird\n",
    "FLAGS": "--privileged -v /:/host ; rm -rf / && true | tee > /tmp/pwned",
    "WORDS": "größer 潮汐 🌊 \u00a0\u200b",
    "EMPTY": "",
}
WATCH = "nohup bash -c 'until [ -e /tmp/enough ]; do cat /proc/[0-9]*/cmdline; echo; done 2>&-' > /tmp/commands 2>&1 &"


def carried(app: App, names: list[str]) -> dict[str, str]:
    """Read variables as the program in the container sees them."""
    program = f"import json, os; print(json.dumps({{name: os.environ.get(name) for name in {names!r}}}))"
    found: dict[str, str] = json.loads(app.inv("deploy.exec", f'python3 -I -S -c "{program}"').out)
    return found


def test_hostile_values_arrive_literally_and_run_nowhere(shaky: App) -> None:
    shaky.configure(environment={"BEHAVIOUR": "healthy", **HOSTILE})
    shaky.deploy()
    assert carried(shaky, list(HOSTILE)) == HOSTILE
    for server in shaky.servers:
        assert server.root("ls /tmp/pwned 2>&1 || true").strip().endswith("No such file or directory")
        running = server.running(shaky.name)
        assert all("No such" in server.root(f"docker exec {name} ls /tmp/pwned 2>&1 || true") for name in running)


def test_secrets_reach_the_container_and_nothing_else(shaky: App) -> None:
    secret, quoted = "s3cret-of-the-tide-$(id)", "another\n'secret' \"of\" the tide"
    file = shaky.root / ".env.sandbox"
    file.write_text(f"FIRST='{secret}'\nSECOND={json.dumps(quoted)}\n")
    file.chmod(0o600)
    shaky.configure(secrets=["FIRST", "SECOND"])
    for server in shaky.servers:
        server.root(f"rm -f /tmp/enough; {WATCH}")
    try:
        said = [shaky.inv("deploy", "--verbose").said, shaky.deploy("--dry-run").said]
        assert carried(shaky, ["FIRST", "SECOND"]) == {"FIRST": secret, "SECOND": quoted}
        looks = ("deploy.status --json", "deploy.history", "config.show", "server.check --json")
        said += [shaky.inv(*look.split()).said for look in looks]
        shaky.configure(secrets=["FIRST", "SECOND"], environment={"BEHAVIOUR": "crash"})
        said.append(shaky.inv("deploy", "--verbose", code=1).said)
    finally:
        commands = [server.root("touch /tmp/enough; cat /tmp/commands | tr '\\0' ' '") for server in shaky.servers]
        file.unlink()
    assert all("/app/server.py" in one for one in commands), "the watch saw no process"
    files = [server.root("cat $(find /srv/tidegate -type f)") for server in shaky.servers]
    local = [path.read_text(errors="replace") for path in (shaky.root / ".tidegate").rglob("*.json")]
    for part in ("of-the-tide", "the tide"):
        assert not [text for text in (*said, *commands, *files, *local) if part in text]


def test_a_file_of_secrets_that_others_may_read_is_refused(shaky: App) -> None:
    file = shaky.root / ".env.sandbox"
    file.write_text("FIRST=open-to-all\n")
    file.chmod(0o644)
    shaky.configure(secrets=["FIRST", "SECOND"])
    before = shaky.look()
    try:
        said = shaky.inv("deploy", code=2).said
    finally:
        file.unlink()
    assert "0600" in said
    assert "open-to-all" not in said
    assert shaky.look() == before

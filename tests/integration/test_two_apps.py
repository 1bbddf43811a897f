"""Two apps on the same servers, each with its own domain."""

from __future__ import annotations

import pytest

from tests.integration.project import App, assert_same, shaky_configuration

pytestmark = pytest.mark.integration


def of(app: App, look: list[str]) -> list[list[str]]:
    """Return what belongs to one app."""
    return [[line for line in one.splitlines() if app.name in line] for one in look]


def test_two_apps_answer_side_by_side_and_a_deploy_of_one_never_touches_the_other(blog: App, shaky: App) -> None:
    before = of(blog, blog.look())
    assert all(any("/releases/" in line for line in lines) for lines in before)
    shaky.configure(environment={"BEHAVIOUR": "healthy", "SIDE": "by side"})
    with blog.users(write=True) as readers, shaky.users() as users:
        shaky.deploy()
        shaky.inv("deploy.rollback")
    readers.nobody_noticed()
    users.nobody_noticed()
    assert of(blog, blog.look()) == before
    for app in (blog, shaky):
        assert all(app.name.partition("-")[0] in app.config.read_text() and status == 200 for status, _ in app.get("/health"))
    assert blog.serving() != shaky.serving()
    assert [status for status, _ in [server.get("nobody.localhost", "/") for server in blog.servers]] == [404, 404]


def test_the_domain_of_another_app_is_refused_before_any_change(blog: App, shaky: App, tag: str) -> None:
    thief = App(blog.root, blog.servers, shaky_configuration(f"thief-{tag}", blog.domain), "thief.toml")
    before, serving = blog.look(), blog.serving()
    done = thief.deploy(code=3)
    assert f"{blog.domain} belongs to the app {blog.name}" in done.document["cause"]
    new = [line for lines in of(thief, blog.look()) for line in lines]
    assert new == [f"/srv/tidegate/{thief.name} 700 1000"] * 2  # where the lock is
    assert_same(before, [look.replace(f"{line}\n", "") for look, line in zip(blog.look(), new, strict=True)])
    assert thief.containers() == [[], []]
    assert blog.serving() == serving

"""Deploys in a row and a rollback on two servers, while users read and write."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise

import pytest

from tests.integration.project import REPOSITORY, App, Server, wait_until

pytestmark = pytest.mark.integration


def posts(server: Server, domain: str) -> set[str]:
    """Read all titles through the API, page after page."""
    titles: set[str] = set()
    before = ""
    while page := json.loads(server.get(domain, f"/posts?limit=100{before}")[1])["posts"]:
        titles |= {post["title"] for post in page}
        before = f"&before={page[-1]['id']}"
    return titles


def paint(app: App, banner: str) -> None:
    """Change the code so that the front page shows a banner."""
    plain = (REPOSITORY / "example/blog/api.py").read_text()
    (app.root / "example/blog/api.py").write_text(
        plain.replace('JSONResponse({"title"', f'JSONResponse({{"banner-{banner}": 1, "title"', 1)
    )


def shown(app: App, banner: str) -> bool:
    return all(f"banner-{banner}" in body for _, body in app.get("/"))


def slots(app: App) -> list[str]:
    return [json.loads(body)["slot"] for _, body in app.get("/version")]


@pytest.mark.parametrize(("number", "enough"), [(3, 4_000), pytest.param(10, 20_000, marks=pytest.mark.slow)])
def test_deploys_in_a_row_and_a_rollback_drop_no_request_and_lose_no_post(
    blog: App, number: int, enough: int, record_property: Callable[[str, object], None]
) -> None:
    seconds, probed, seen = [], 0, [slots(blog)]
    with blog.users(100, write=True) as users:
        for nth in range(number):
            paint(blog, str(nth))
            done = blog.deploy()
            assert shown(blog, str(nth))
            assert [probe["failures"] for probe in done.document["probes"].values()] == [0, 0]
            assert users.failures == 0
            probed += sum(probe["requests"] for probe in done.document["probes"].values())
            seconds.append(round(done.seconds, 2))
            seen.append(slots(blog))
        back = blog.inv("deploy.rollback", "--json")
        assert shown(blog, str(number - 2))
        assert not shown(blog, str(number - 1))
        assert [probe["failures"] for probe in back.document["probes"].values()] == [0, 0]
        wait_until(lambda: users.requests > enough, "the users are too slow", 200)
    users.nobody_noticed()
    assert all(one != other for before, after in pairwise(seen) for one, other in zip(before, after, strict=True))
    for server, acknowledged in zip(blog.servers, users.acknowledged, strict=True):
        assert len(acknowledged) > enough / 20
        assert set(acknowledged) <= posts(server, blog.domain)
    figures = {
        "requests": users.requests, "failures": users.failures, "posts": sum(map(len, users.acknowledged)),
        "p99_ms": [round(1000 * report.p99, 1) for report in users.reports], "deploys_s": seconds,
        "rollback_s": round(back.seconds, 2), "probed": probed,
    }  # fmt: skip
    print(figures)
    record_property(f"{number} deploys", figures)

"""Certificates with their keys do not outlive the releases that use them."""

from __future__ import annotations

from pathlib import Path

from deploy import parts
from deploy.model import EdgeState, HostState
from deploy.steps import Prune
from ops.config import App

USED, UNUSED = "blog-0123456789abcdef.pem", "blog-fedcba9876543210.pem"


def pruned(*pems: str) -> list[str]:
    state = HostState("one", pems=pems, edge=EdgeState(content=f"ssl_certificate /etc/nginx/tidegate/tls/{USED};"))
    found = parts.prune(App(name="blog", context=Path(), dockerfile=Path(), port=3000), state, None)
    return [pem for step in found if isinstance(step, Prune) for pem in step.pems]


def test_a_certificate_that_no_kept_release_names_is_removed() -> None:
    assert pruned(USED, UNUSED) == [UNUSED]


def test_the_certificate_that_serves_stays() -> None:
    assert pruned(USED) == []


def test_other_apps_certificates_are_not_touched() -> None:
    assert pruned("blog-a-0123456789abcdef.pem", "shop-0123456789abcdef.pem", "blog-0123.pem") == []

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ops.config_values import app_name, domain, host_parts, image, url_path
from ops.durations import duration_text, seconds, size, size_bytes


@pytest.mark.parametrize(
    ("text", "expected"),
    [("100ms", 0.1), ("1.5s", 1.5), ("30s", 30), ("10m", 600), ("1h", 3600), ("1d", 86400), (2, 2), (0.25, 0.25)],
)
def test_a_duration_is_read_in_seconds(text: object, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "s", "1", "-1s", "1 s", "1s\n", "1sec", "٣s", "1e9s", True, -1, float("nan"), None])
def test_anything_else_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match="a duration such as"):
        seconds(text)


@settings(max_examples=50)
@given(st.integers(min_value=0, max_value=10**8))
def test_a_duration_shown_reads_back_as_itself(milliseconds: int) -> None:
    assert seconds(duration_text(milliseconds / 1000)) == milliseconds / 1000


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("10", 10), ("512k", 524288), ("10M", 10485760), ("2g", 2**31)])
def test_a_size_is_read_in_bytes(text: str, number: int) -> None:
    assert size(text) == text.lower()
    assert size_bytes(text) == number


@pytest.mark.parametrize("text", ["", "m", "1.5m", "10 m", "10m;", "10m\n", "-1", "1t", 10])
def test_anything_else_is_no_size(text: object) -> None:
    with pytest.raises(ValueError, match="a size such as"):
        size(text)


@pytest.mark.parametrize("text", ["localhost", "Blog.Example.com", "xn--bcher-kva.example", "203.0.113.9", "a.b.c.localhost"])
def test_a_host_name_is_a_domain(text: str) -> None:
    assert domain(text) == text.lower()


@pytest.mark.parametrize(
    "text", ["", ".", "a..b", "a.", "-a.b", "a-.b", "a_b", "a b", "a;b", "a.b\n", "a" * 64, "a." * 127 + "ab"]
)
def test_anything_else_is_no_domain(text: str) -> None:
    with pytest.raises(ValueError, match="a host name"):
        domain(text)


@pytest.mark.parametrize("text", ["edge", "sites", "tidegate", "tidegate-x"])
def test_names_of_ours_are_refused_for_apps(text: str) -> None:
    with pytest.raises(ValueError, match="does not use itself"):
        app_name(text)


@pytest.mark.parametrize("text", ["blog", "team/blog", "localhost:5000/blog", "r.example.com/a/b_c/d-e.f"])
def test_an_image_name_needs_no_tag(text: str) -> None:
    assert image(text) == text


@pytest.mark.parametrize("text", ["", "Blog", "blog:1", "blog@sha256:ab", "-blog", "a//b", "blog\n", "a/" * 200 + "b"])
def test_an_image_name_with_a_tag_or_worse_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="without tag or digest"):
        image(text)


@pytest.mark.parametrize("text", ["/", "/health", "/a/b?c=d&e=%20", "/~x"])
def test_a_url_path_is_carried(text: str) -> None:
    assert url_path(text) == text


@pytest.mark.parametrize("text", ["", "health", "/a b", "/a;b", "/a{", "/$uri", "/a#b", "/a%2", '/"', "/a\\b", "/é", "/a\n"])
def test_a_url_path_that_nginx_would_obey_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a URL path"):
        url_path(text)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("h", {"address": "h"}),
        ("u@h", {"address": "h", "user": "u"}),
        ("u@h:22", {"address": "h", "user": "u", "port": 22}),
        ("[::1]:22", {"address": "::1", "port": 22}),
        ("u@::1", {"address": "::1", "user": "u"}),
        ("@h", {"address": "h", "user": ""}),
        ("a@b@h", {"address": "h", "user": "a@b"}),
    ],
)
def test_a_server_as_text_has_its_parts(text: str, parts: dict[str, object]) -> None:
    assert host_parts(text) == parts

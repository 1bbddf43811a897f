from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.example.databases import Database, PostgresDatabase, SqliteFile
from tests.example.process import Blog

if TYPE_CHECKING:
    from pathlib import Path

POST = {"title": "Low water", "body": "The sand is bare."}
BEFORE_THE_STORE = pytest.mark.parametrize("empty", ["sqlite"], indirect=True)  # which store it is makes no difference


def test_health_says_which_schema_it_found_and_needs(blog: Blog) -> None:
    assert blog.get("/health") == (200, {"status": "ok", "schema": 3, "needs": 3, "version": "v1"})


def test_health_fails_without_a_database_and_makes_none(tmp_path: Path) -> None:
    with Blog(SqliteFile(tmp_path / "none.db")) as blog:
        status, answer = blog.get("/health")
    assert status == 503
    assert "the database does not answer" in answer["error"]
    assert not (tmp_path / "none.db").exists()


def test_health_fails_before_migration_and_says_what_to_run(empty: Database) -> None:
    empty.execute("SELECT 1")
    with Blog(empty) as blog:
        status, answer = blog.get("/health")
        assert blog.post(POST) == (503, {"error": "the database is not available"})
    assert (status, answer["error"]) == (503, "schema 0, this code needs 3: run `python -m blog migrate`")


NEWER = {SqliteFile: "PRAGMA user_version=99", PostgresDatabase: "INSERT INTO migrations (number) VALUES (99)"}


def test_old_code_stays_healthy_on_the_schema_of_newer_code(database: Database) -> None:
    database.execute(NEWER[type(database)])
    with Blog(database) as blog:
        status, answer = blog.get("/health")
        assert blog.post(POST)[0] == 201
    assert (status, answer["schema"]) == (200, 99)


def test_version_tells_the_image_the_release_and_the_slot(blog: Blog) -> None:
    assert blog.get("/version") == (200, {"version": "v1", "release": "7", "slot": "green"})


def test_index_tells_where_to_go(blog: Blog) -> None:
    assert blog.get("/")[1]["title"] == "Tides"


def test_a_post_can_be_read_back(blog: Blog) -> None:
    status, post = blog.post({"title": " Ebb; DROP TABLE posts -- ", "body": "Æ 潮 '\"\n$(x)"})
    assert (status, post["title"], post["body"]) == (201, "Ebb; DROP TABLE posts --", "Æ 潮 '\"\n$(x)")
    assert blog.get(f"/posts/{post['id']}") == (200, post)
    assert datetime.fromisoformat(post["created"]).utcoffset() == timedelta()
    assert len(post["created"]) == len("2026-01-01T00:00:00.000+00:00")


def test_posts_are_listed_newest_first_and_in_pages(blog: Blog) -> None:
    ids = [blog.post({"title": f"Tide {number}", "body": "."})[1]["id"] for number in range(5)]
    listed = blog.get("/posts")[1]["posts"]
    page = blog.get(f"/posts?limit=2&before={ids[3]}")[1]["posts"]
    assert [post["id"] for post in listed] == ids[::-1]
    assert [post["id"] for post in page] == [ids[2], ids[1]]


@BEFORE_THE_STORE
@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ([], "expected an object"),
        ({}, "title: expected text"),
        ({**POST, "title": "  "}, "title: expected text"),
        ({**POST, "title": 3}, "title: expected text"),
        ({**POST, "title": "x" * 201}, "title: 201 characters, at most 200"),
        ({**POST, "body": "x" * 20_001}, "body: 20001 characters"),
        ({**POST, "body": "\0"}, "body: contains characters that are not text"),
        ({**POST, "body": "\ud800"}, "body: contains characters that are not text"),
        ({**POST, "id\ud800": 1}, "'id\\ud800': unknown"),
    ],
)
def test_wrong_input_is_refused_with_its_reason(blog: Blog, data: Any, problem: str) -> None:
    status, answer = blog.post(data)
    assert status == 422
    assert any(problem in found for found in answer["problems"])
    assert blog.get("/posts")[1] == {"posts": []}


@BEFORE_THE_STORE
def test_everything_that_is_wrong_is_named_at_once(blog: Blog) -> None:
    assert len(blog.post({"title": "", "author": "me"})[1]["problems"]) == 3


@BEFORE_THE_STORE
@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[" * 60_000, b"1" * 5000])
def test_a_body_that_is_not_json_is_refused(blog: Blog, body: bytes) -> None:
    status, answer = blog.request("POST", "/posts", body)
    assert (status, json.loads(answer)["error"]) == (422, "invalid input")


@BEFORE_THE_STORE
def test_a_body_over_the_limit_is_refused(blog: Blog) -> None:
    status, answer = blog.request("POST", "/posts", b"x" * (64 * 1024 + 1))
    assert (status, json.loads(answer)["error"]) == (413, "the body is over 65536 bytes")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/nowhere", 404),
        ("/posts/1", 404),
        ("/posts/x", 422),
        ("/posts/-1", 422),
        ("/posts/" + "9" * 5000, 422),
        ("/posts/9223372036854775808", 422),
        ("/posts?limit=0", 422),
        ("/posts?limit=101", 422),
        ("/posts?before=%D9%A3", 422),
    ],
)
def test_wrong_addresses_get_an_error_as_json(blog: Blog, path: str, status: int) -> None:
    found, answer = blog.get(path)
    assert (found, bool(answer["error"])) == (status, True)


@BEFORE_THE_STORE
def test_a_wrong_method_is_refused(blog: Blog) -> None:
    assert blog.request("DELETE", "/posts/1")[0] == 405


def test_metrics_count_requests_by_route(blog: Blog) -> None:
    blog.post(POST)
    blog.get("/posts/1")
    blog.get("/posts/2")
    blog.get("/nowhere/of/many")
    lines = blog.request("GET", "/metrics")[1].decode().splitlines()
    assert 'blog_http_requests_total{method="POST",path="/posts",status="201"} 1' in lines
    assert 'blog_http_requests_total{method="GET",path="/posts/{id}",status="404"} 1' in lines
    assert 'blog_http_requests_total{method="GET",path="none",status="404"} 1' in lines
    assert 'blog_http_request_duration_seconds_bucket{le="+Inf"} 4' in lines
    assert {"blog_posts 1", "blog_schema_version 3", 'blog_build_info{version="v1"} 1'} <= set(lines)

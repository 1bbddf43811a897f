"""Which releases an OSV record is about, and what a folder of records is worth."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from deploy.audit import osv
from deploy.audit.osv_service import serving
from ops.errors import Refused
from tests.deploy.audit.audit_cases import ADVISORIES


def about(release: str, *events: dict[str, str], kind: str = "ECOSYSTEM", versions: tuple[str, ...] = ()) -> bool:
    return osv.affects({"versions": versions, "ranges": [{"type": kind, "events": list(events)}]}, Version(release))


def since(text: str) -> dict[str, str]:
    return {"introduced": text}


def fixed(text: str) -> dict[str, str]:
    return {"fixed": text}


def last(text: str) -> dict[str, str]:
    return {"last_affected": text}


def limit(text: str) -> dict[str, str]:
    return {"limit": text}


@pytest.mark.parametrize(
    ("events", "inside", "outside"),
    [
        ([since("0")], ["0.0.dev1", "0a1", "1.0", "2024.1"], []),
        ([since("0"), fixed("2.0")], ["0a1", "1.9.9", "2.0rc1"], ["2.0", "2.0.post1", "10.0"]),
        ([since("1.2"), fixed("1.10")], ["1.2", "1.9"], ["1.1", "1.2rc1", "1.10"]),
        ([since("1.0"), last("1.4")], ["1.0", "1.4"], ["0.9", "1.4.post1", "1.5"]),
        ([since("0"), fixed("2.2.5"), since("2.3.0"), fixed("2.3.2")], ["2.2.4", "2.3.0", "2.3.1"], ["2.2.5", "2.3.2", "3"]),
        ([fixed("2.3.2"), since("2.3.0"), fixed("2.2.5"), since("0")], ["2.2.4", "2.3.1"], ["2.2.5", "2.3.2"]),
        ([since("0"), fixed("2.0"), since("2.0"), fixed("3.0")], ["1.0", "2.0", "2.9"], ["3.0"]),
        ([since("0"), limit("2.0")], ["1.9"], ["2.0", "3.0"]),
        ([since("0"), limit("2.0"), limit("3.0")], ["2.5"], ["3.0"]),
        ([since("0"), limit("*")], ["99"], []),
        ([since("1!0")], ["1!0.1"], ["2024.1"]),
        ([fixed("2.0")], [], ["1.0", "2.0"]),
        ([], [], ["1.0"]),
    ],
)
def test_a_range_is_what_its_events_say_in_the_order_of_versions(
    events: list[dict[str, str]], inside: list[str], outside: list[str]
) -> None:
    assert [about(one, *events) for one in inside] == [True] * len(inside)
    assert [about(one, *events) for one in outside] == [False] * len(outside)


def test_an_event_that_is_no_python_version_never_makes_a_release_safe() -> None:
    assert about("5.0", since("0"), fixed("2004d-final"))
    assert about("0.1", since("the beginning"), fixed("2.0"))
    assert not about("2.0", since("the beginning"), fixed("2.0"))


def test_a_release_is_also_affected_when_it_is_listed() -> None:
    assert about("1.0", kind="GIT", versions=("0.9-eevee", "1.0.0"))
    assert not about("1.1", kind="GIT", versions=("0.9-eevee", "1.0.0"))


def test_ranges_of_commits_say_nothing_about_releases() -> None:
    assert not about("1.0", since("0"), kind="GIT")


numbers = st.integers(0, 30)


@given(st.lists(st.tuples(numbers, numbers), max_size=4), numbers)
def test_ranges_mean_what_a_plain_reading_of_each_pair_means(pairs: list[tuple[int, int]], release: int) -> None:
    starts = sorted({number for pair in pairs for number in pair})
    spans = list(zip(starts[::2], starts[1::2], strict=False))
    events = [one for low, high in spans for one in (since(str(low)), fixed(str(high)))]
    assert about(str(release), *events) == any(low <= release < high for low, high in spans)


@pytest.fixture(scope="module")
def database() -> osv.Database:
    return osv.load(ADVISORIES)


def ids(database: osv.Database, name: str, version: str) -> list[str]:
    return [one["id"] for one in database.query(name, version)]


@pytest.mark.parametrize(
    ("name", "version", "found"),
    [
        ("requests", "2.30.0", ["PYSEC-2023-74"]),
        ("Requests", "2.30.0", ["PYSEC-2023-74"]),
        ("requests", "2.31.0", []),
        ("requests", "2.2.1", []),
        ("jinja2", "2.10", ["PYSEC-2019-217", "PYSEC-2021-66"]),
        ("jinja2", "2.10.1", ["PYSEC-2021-66"]),
        ("jinja2", "2.11.3", []),
        ("idna", "3.6", ["PYSEC-2024-60"]),
        ("idna", "3.6+built.here", ["PYSEC-2024-60"]),
        ("idna", "3.7", []),
        ("a-package-nobody-knows", "1.0", []),
    ],
)
def test_real_records_are_found_for_the_releases_they_are_about(
    database: osv.Database, name: str, version: str, found: list[str]
) -> None:
    assert ids(database, name, version) == found


def test_a_withdrawn_record_is_about_nothing(database: osv.Database) -> None:
    assert ids(database, "redis", "2.10.6") == []
    assert database.count == 6


def test_the_newest_record_says_how_old_a_folder_is(database: osv.Database) -> None:
    assert f"{database.newest:%Y-%m-%d}" == "2024-07-11"


def test_an_answer_names_every_release_that_mends(database: osv.Database) -> None:
    [answer] = database.query("flask", "2.3.1")
    assert answer["affected"][0]["ranges"][0]["events"] == [{"fixed": "2.2.5"}, {"fixed": "2.3.2"}]
    assert "published" not in answer


def record(**said: Any) -> dict[str, Any]:
    affected = [
        {"package": {"name": "Some_Thing", "ecosystem": "PyPI"}, "ranges": [{"type": "ECOSYSTEM", "events": [since("0")]}]}
    ]
    return {"id": "OURS-1", "modified": "2024-10-01", "affected": affected, **said}


def test_records_may_be_json_and_lie_anywhere_below(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "ours.json").write_text(json.dumps(record()))
    assert ids(osv.load(tmp_path), "some-thing", "1.0") == ["OURS-1"]


def test_a_version_in_yaml_is_text_and_no_number(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(
        "id: OURS-2\nmodified: 2024-10-01T00:00:00Z\nwithdrawn: null\naffected:\n- package: {name: it, ecosystem: PyPI}\n"
        "  ranges:\n  - type: ECOSYSTEM\n    events: [{introduced: 0}, {fixed: 1.10}]\n"
    )
    found = osv.load(tmp_path)
    assert (ids(found, "it", "1.9"), ids(found, "it", "1.10")) == (["OURS-2"], [])


def test_files_that_are_no_records_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "ours.json").write_text(json.dumps(record()))
    (tmp_path / "mkdocs.yml").write_text("site_name: advisories")
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / ".github").mkdir()
    (tmp_path / ".github" / "broken.yml").write_text("{")
    assert osv.load(tmp_path).count == 1


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("one.yaml", "id: [unclosed"),
        ("one.json", "{"),
        ("one.json", json.dumps(record(modified="yesterday"))),
        ("one.yaml", "id: CUT-OFF\naffected:\n- package: {name: it, ecosystem: PyPI}\n"),
        ("one.json", json.dumps(record(affected=["requests"]))),
        ("one.json", json.dumps(record(affected=[{"package": {"ecosystem": "PyPI"}}]))),
    ],
)
def test_a_record_that_cannot_be_read_is_an_error_that_names_it(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "ours.json").write_text(json.dumps(record()))
    (tmp_path / name).write_text(text)
    with pytest.raises(Refused, match=name):
        osv.load(tmp_path)


def test_a_folder_without_records_about_python_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no advisories about Python packages"):
        osv.load(tmp_path)
    npm = [{"package": {"name": "lodash", "ecosystem": "npm"}}]
    (tmp_path / "npm.json").write_text(json.dumps(record(affected=npm)))
    (tmp_path / "withdrawn.json").write_text(json.dumps(record(withdrawn="2024-10-02T00:00:00Z")))
    with pytest.raises(Refused, match="no advisories about Python packages"):
        osv.load(tmp_path)


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="there is no folder"):
        osv.load(tmp_path / "nowhere")


def post(address: str, query: object) -> Any:
    request = urllib.request.Request(address, json.dumps(query).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def query(name: str, version: str, ecosystem: str = "PyPI") -> dict[str, Any]:
    return {"package": {"name": name, "ecosystem": ecosystem}, "version": version}


def test_the_service_answers_as_the_public_one_does(database: osv.Database) -> None:
    with serving(database) as address:
        assert [one["id"] for one in post(address, query("idna", "3.6"))["vulns"]] == ["PYSEC-2024-60"]
        assert post(address, query("idna", "3.7")) == {}


@pytest.mark.parametrize(
    ("path", "asked", "status"),
    [
        ("", query("lodash", "1.0", "npm"), 400),
        ("", query("idna", "not a version"), 400),
        ("", ["nonsense"], 400),
        ("batch", query("idna", "3.6"), 404),
    ],
)
def test_the_service_refuses_what_it_does_not_understand(database: osv.Database, path: str, asked: object, status: int) -> None:
    with serving(database) as address, pytest.raises(urllib.error.HTTPError) as refused:
        post(address + path, asked)
    assert refused.value.code == status
    refused.value.close()

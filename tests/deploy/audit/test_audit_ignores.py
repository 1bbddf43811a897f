"""What audit.toml may ignore, and for how long."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from deploy.audit import ignores
from deploy.audit.model import Accepted, Advisory, Finding, Lock
from ops.errors import ConfigError
from tests.deploy.audit.audit_cases import TODAY

FOUND = Finding(
    Lock(Path("requirements.lock"), "Python", Path()),
    Advisory("requests", "2.30.0", "PYSEC-2023-74", ("CVE-2023-32681", "GHSA-j8r2-6x86-q33q"), ("2.31.0",), "It leaks"),
    "upgrade",
)


def ignore(id: str = "PYSEC-2023-74", *, days: int = 30, **said: Any) -> dict[str, Any]:
    return {"id": id, "reason": "no proxies are used", "expires": TODAY + timedelta(days=days), **said}


def parse(*tables: dict[str, Any], **said: Any) -> ignores.Settings:
    return ignores.parse({"ignore": list(tables), **said}, "audit.toml", TODAY)


@pytest.mark.parametrize("id", ["PYSEC-2023-74", "CVE-2023-32681", "GHSA-j8r2-6x86-q33q"])
@pytest.mark.parametrize("package", [None, "requests", "Requests"])
def test_an_ignore_covers_a_finding_under_any_of_its_names(id: str, package: str | None) -> None:
    settings = parse(ignore(id, package=package))
    marked, unused = ignores.apply([FOUND], settings.ignore)
    assert [one.accepted for one in marked] == [Accepted("no proxies are used", TODAY + timedelta(days=30))]
    assert unused == []


@pytest.mark.parametrize("table", [ignore("PYSEC-2023-75"), ignore(package="urllib3")])
def test_an_ignore_of_something_else_covers_nothing_and_is_told(table: dict[str, Any]) -> None:
    marked, unused = ignores.apply([FOUND], parse(table).ignore)
    assert marked == [FOUND]
    assert [one.id for one in unused] == [table["id"]]


@pytest.mark.parametrize(("written", "told"), [("typing_extensions", "typing-extensions"), ("pyyaml", "PyYAML")])
def test_an_ignore_covers_a_package_however_its_name_is_written(written: str, told: str) -> None:
    assert parse(ignore(package=written)).ignore[0].covers(Advisory(told, "1", "PYSEC-2023-74", (), (), ""))


def test_an_ignore_that_has_expired_is_an_error_that_names_it() -> None:
    with pytest.raises(ConfigError, match="PYSEC-2023-74 of requests has expired"):
        parse(ignore("PYSEC-1"), ignore(days=-1, package="requests"))


@pytest.mark.parametrize("days", [0, 1, 180])
def test_an_ignore_may_last_from_today_to_half_a_year(days: int) -> None:
    assert parse(ignore(days=days)).ignore


def test_an_ignore_may_not_last_longer() -> None:
    with pytest.raises(ConfigError, match=r"ignore\[0\].expires: expected a day from 2024-10-10 to 2025-04-08, found 2025-04-09"):
        parse(ignore(days=181))


@pytest.mark.parametrize("key", ["id", "reason", "expires"])
def test_an_ignore_needs_an_id_a_reason_and_an_end(key: str) -> None:
    table = ignore()
    del table[key]
    with pytest.raises(ConfigError, match=rf"ignore\[0\].{key}: expected a value, it is required"):
        parse(table)


@pytest.mark.parametrize(("key", "value"), [("reason", "  "), ("id", ""), ("expires", "soon"), ("until", "2024-12-01")])
def test_what_cannot_be_meant_is_an_error_with_its_key(key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=rf"audit.toml: ignore\[0\].{key}"):
        parse(ignore() | {key: value})


def test_a_folder_without_the_file_ignores_nothing(tmp_path: Path) -> None:
    assert ignores.read(tmp_path, TODAY) == ignores.Settings()


def test_a_file_that_is_no_toml_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "audit.toml").write_text("[[ignore]")
    with pytest.raises(ConfigError, match=r"audit.toml cannot be read"):
        ignores.read(tmp_path, TODAY)


def test_days_are_read_as_toml_writes_them(tmp_path: Path) -> None:
    (tmp_path / "audit.toml").write_text('[[ignore]]\nid = "CVE-1"\nreason = "why"\nexpires = 2024-12-31\n')
    assert str(ignores.read(tmp_path, TODAY).ignore[0].expires) == "2024-12-31"

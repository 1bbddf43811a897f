"""Packages are read as their managers write them down, and the bill of materials of them is valid and always the same."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from deploy.images import bills
from deploy.images.bill import bill
from deploy.images.packages import Package, System, packages, system
from tests.deploy.images.made import image

STATUS = b"""Package: libc6
Status: install ok installed
Source: glibc (2.41-12)
Architecture: amd64
Version: 2.41-12+deb13u5
Description: GNU C Library
 Version: 7 is not a field

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1.0
"""
APK = b"""C:Q1pA=
P:musl
V:1.2.5-r9
A:x86_64
o:musl
F:lib
R:ld-musl-x86_64.so.1

P:busybox
V:1.37.0-r12
A:x86_64
"""
FILES = {
    "etc/os-release": b'PRETTY_NAME="Debian"\nVERSION_ID="13"\nID=debian\n',
    "var/lib/dpkg/status": STATUS,
    "var/lib/dpkg/status.d/tzdata": b"Package: tzdata\nArchitecture: all\nVersion: 2026b-0+deb13u1\n",
    "var/lib/dpkg/status.d/tzdata.md5sums": b"Package: no\nVersion: 1\n",
    "opt/venv/lib/python3.13/site-packages/Typing_Extensions-4.16.0.dist-info/METADATA": (
        b"Metadata-Version: 2.4\nName: Typing_Extensions\nVersion: 4.16.0\n\nName: not me\n"
    ),
    "app/node_modules/@scope/tool/package.json": b'{"name": "@scope/tool", "version": "2.0.1"}',
    "app/node_modules/broken/package.json": b"{",
    "app/node_modules/deep/package.json": b"[" * 100_000,
    "app/node_modules/versionless/package.json": b'{"name": "versionless", "version": null}',
    "app/node_modules/odd/package.json": b"[]",
    "app/node_modules/slash/package.json": b'{"name": "/", "version": "1"}',
    "app/node_modules/nameless/package.json": b'{"version": "1"}',
}  # fmt: skip


def test_packages_of_every_manager_are_found() -> None:
    assert packages(FILES) == (
        Package("deb", "libc6", "2.41-12+deb13u5", "amd64", "var/lib/dpkg/status", "glibc@2.41-12"),
        Package("deb", "tzdata", "2026b-0+deb13u1", "all", "var/lib/dpkg/status.d/tzdata"),
        Package("npm", "@scope/tool", "2.0.1", "", "app/node_modules/@scope/tool/package.json"),
        Package("pypi", "typing-extensions", "4.16.0", "",
                "opt/venv/lib/python3.13/site-packages/Typing_Extensions-4.16.0.dist-info/METADATA"),
    )  # fmt: skip


def test_packages_of_alpine_are_found() -> None:
    found = packages({"lib/apk/db/installed": APK})
    assert [(one.name, one.version, one.source) for one in found] == [("busybox", "1.37.0-r12", ""), ("musl", "1.2.5-r9", "musl")]


def test_the_distribution_is_told_by_os_release() -> None:
    assert system(FILES) == System("debian", "13")
    assert system({"usr/lib/os-release": b"ID=alpine\nVERSION_ID=3.23.0\n"}) == System("alpine", "3.23.0")
    assert system({}) == System()


def test_components_have_package_urls() -> None:
    known = json.loads(bill(image({}), FILES, 0))
    assert sorted(one["purl"] for one in known["components"] if "purl" in one) == [
        "pkg:deb/debian/libc6@2.41-12%2Bdeb13u5?arch=amd64&distro=debian-13&upstream=glibc%402.41-12",
        "pkg:deb/debian/tzdata@2026b-0%2Bdeb13u1?arch=all&distro=debian-13",
        "pkg:npm/%40scope/tool@2.0.1",
        "pkg:pypi/typing-extensions@4.16.0",
    ]
    assert [one["version"] for one in known["components"] if one["type"] == "operating-system"] == ["13"]


def test_the_image_is_named_with_its_digest_and_its_source() -> None:
    labels = {"org.opencontainers.image.revision": "abc", "dev.tidegate.app": "shop"}
    whole = json.loads(bill(image({}, Labels=labels), FILES, 1_767_225_600))
    about = whole["metadata"]["component"]
    assert (about["name"], about["version"], about["hashes"][0]["content"]) == ("tidegate/shop", "1.4.0", "5" * 64)
    told = {one["name"]: one["value"] for one in about["properties"]}
    assert told["org.opencontainers.image.revision"] == "abc"
    assert "dev.tidegate.app" not in told
    assert told["dev.tidegate.layer.01"].startswith("sha256:")
    assert whole["metadata"]["timestamp"] == "2026-01-01T00:00:00+00:00"


def test_the_same_image_gives_the_same_bytes() -> None:
    backwards = dict(reversed(FILES.items()))
    assert bill(image({}), FILES, 5) == bill(image({}), backwards, 5)


@pytest.mark.parametrize("files", [FILES, {}], ids=["packages", "nothing"])
def test_it_is_what_the_schema_of_cyclonedx_wants(files: dict[str, bytes]) -> None:
    pytest.importorskip("jsonschema", reason="the validator's own dependencies are not installed")
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill(image({}), files, 0)) is None


def test_a_bill_goes_with_its_image_to_another_machine_and_with_no_other(tmp_path: Path) -> None:
    here, there, folder = tmp_path / "here", tmp_path / "there", tmp_path / "folder"
    folder.mkdir()
    bills.give(here, "sha256:1", folder)
    assert list(folder.iterdir()) == []
    bills.keep(here, "sha256:1", "one")
    bills.give(here, "sha256:1", folder)
    bills.take(there, "sha256:2", folder)
    assert not there.exists()
    bills.take(there, "sha256:1", folder)
    assert bills.known(there, "sha256:1") == "one"


def test_a_bill_is_kept_by_image_and_the_oldest_go(tmp_path: Path) -> None:
    assert bills.known(tmp_path, "") == bills.known(tmp_path, "sha256:0") == ""
    for number in range(bills.KEPT + 2):
        file = bills.keep(tmp_path, f"sha256:{number}", f"bill {number}")
        os.utime(file, (time.time() - 1000 + number,) * 2)
    bills.keep(tmp_path, "sha256:last", "the last")
    assert bills.known(tmp_path, "sha256:last") == "the last"
    assert bills.known(tmp_path, "sha256:0") == bills.known(tmp_path, "sha256:2") == ""
    assert bills.known(tmp_path, "sha256:3") == "bill 3"
    assert len(list((tmp_path / ".tidegate/images").iterdir())) == bills.KEPT

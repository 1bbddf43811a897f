"""What is in an image is found in every layer, deleted or not, and in its configuration."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import pytest

from deploy.images import contents
from deploy.images.contents import Finding, look
from tests.deploy.images.made import LINK, image
from tests.deploy.images.test_secret_rules import TOKENS, pem

ENV = b"SECRET_KEY=hunter2hunter2\n"


def seen(*layers: Mapping[str, object], **more: object) -> list[tuple[str, str, int, bool]]:
    found = look(image(*layers, **more)).findings  # type: ignore[arg-type]
    return [(one.path, one.kind, one.layer, one.deleted) for one in found]


def test_an_image_without_secrets_is_clean() -> None:
    assert seen({"etc/": None, "etc/passwd": b"root:x:0:0::/:/bin/sh\n", "etc/link": LINK, "empty": b""}) == []


@pytest.mark.parametrize("hides", ["app/.wh..env", "app/.wh..wh..opq", ".wh.app", ".wh..wh..opq"])
def test_what_a_later_layer_deletes_is_found(hides: str) -> None:
    assert seen({"app/.env": ENV}, {hides: b""}) == [("app/.env", "environment file", 1, True)]


def test_what_a_later_layer_overwrites_is_found() -> None:
    assert seen({"app/.env": ENV}, {"./app/.env": b"# nothing\n"}) == [("app/.env", "environment file", 1, True)]
    assert seen({"app/.env": ENV}, {"app": LINK}) == [("app/.env", "environment file", 1, True)]


def test_what_stays_is_not_called_deleted() -> None:
    more = {"app/": None, "app/other": b"", "app/.wh.another": b""}
    assert seen({"app/.env": ENV}, more) == [("app/.env", "environment file", 1, False)]


def test_an_emptied_folder_that_gets_the_file_again_has_it_twice() -> None:
    assert seen({"app/.env": ENV}, {"app/.env": ENV, "app/.wh..wh..opq": b""}) == [
        ("app/.env", "environment file", 1, True),
        ("app/.env", "environment file", 2, False),
    ]


def test_names_of_any_bytes_can_be_told() -> None:
    ((path, *_),) = seen({"app/\udce9\x1b[31m/.env": ENV})
    assert path == r"app/\udce9\x1b[31m/.env"


def test_a_git_folder_is_one_finding() -> None:
    assert seen({"src/.git/HEAD": b"ref", "src/.git/objects/aa/bb": b"\0"}) == [("src/.git", ".git folder", 1, False)]


def test_every_secret_of_a_file_is_told_with_its_line_and_what_made_the_layer() -> None:
    text = f"{TOKENS['npm token']}\n{pem()}".encode()
    found = look(image({"app/x": text}, made_by=(f"COPY --token={TOKENS['npm token']} x /app",))).findings
    assert [(one.line, one.kind, one.shown, one.instruction) for one in found[:2]] == [
        (2, "private key", "", "COPY --token=… x /app".replace("--", "")),
        (1, "npm token", "npm_…", "COPY --token=… x /app".replace("--", "")),
    ]


def packaged_key(key: bytes, maintainer: str = "Somebody <somebody@debian.org>") -> dict[str, object]:
    """Return a key as a package has it, of which dpkg has a record."""
    sums = f"{hashlib.md5(key, usedforsecurity=False).hexdigest()}  usr/share/example/key.pem\nbroken\n".encode()
    status = f"Package: other\nVersion: 1\n\nPackage: example\nMaintainer: {maintainer}\nVersion: 1\n".encode()
    return {"usr/share/example/key.pem": key, "var/lib/dpkg/info/example:amd64.md5sums": sums, "var/lib/dpkg/status": status}


def test_a_file_as_its_debian_package_has_it_is_public_and_a_changed_one_is_not() -> None:
    key = pem().encode()
    packaged = packaged_key(key)
    assert seen(packaged) == []
    assert seen(packaged, {"usr/share/example/key.pem": pem("EC").encode()}) == [
        ("usr/share/example/key.pem", "private key", 2, False)
    ]
    assert seen(packaged, {"etc/key.pem": key}) == [("etc/key.pem", "private key", 2, False)]


@pytest.mark.parametrize(
    ("maintainer", "public"),
    [
        ("Debian Python Team <team+python@tracker.debian.org>", True),
        ("Debian GCC Maintainers <debian-gcc@lists.debian.org>", True),
        ("A Team <pkg-a@alioth-lists.debian.net>", True),
        ("Ubuntu Developers <ubuntu-devel-discuss@lists.ubuntu.com>", True),
        ("The House <ops@example.com>", False),
        ("The House <ops@notdebian.org>", False),
        ("debian.org <ops@debian.org.example.com>", False),
        ("", False),
    ],
)
def test_a_file_of_a_package_that_the_house_made_itself_is_not_public(maintainer: str, public: bool) -> None:
    assert (seen(packaged_key(pem().encode(), maintainer)) == []) is public


def test_of_a_large_file_the_beginning_is_looked_at_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "LARGEST", 100)
    found = look(image({"big": TOKENS["npm token"].encode() + b" " * 200, "other": b" " * 100}))
    assert (found.cut, [one.path for one in found.findings]) == (("big",), ["big"])


def test_files_of_package_managers_are_those_of_the_last_layer() -> None:
    first: dict[str, object] = {"var/lib/dpkg/status": b"one", "etc/os-release": b"x", "app/node_modules/a/package.json": b"{}"}
    found = look(image(first, {"var/lib/dpkg/status": b"two", "app/.wh.node_modules": b""}))
    assert found.files == {"var/lib/dpkg/status": b"two", "etc/os-release": b"x"}


def test_the_configuration_is_looked_at() -> None:
    history = ("COPY 1 /", "#ENV API_TOKEN=hunter2hunter2", "#RUN |1 NPM_TOKEN=hunter2hunter2 /bin/sh -c npm ci")
    found = look(image({}, made_by=history, Env=["PATH=/bin", "API_TOKEN=hunter2hunter2"], Labels={"password": "hunter2hunter2"}))
    assert [(one.path, one.kind, one.shown) for one in found.findings] == [
        ("environment API_TOKEN", "value of API_TOKEN", "hunt…"),
        ("label password", "value of password", "hunt…"),
        ("history: value of NPM_TOKEN", "value of NPM_TOKEN", "hunt…"),
    ]
    assert not any("hunter2" in str(vars(one)) for one in found.findings)


def test_a_variable_that_a_later_step_empties_is_still_in_the_history() -> None:
    history = ("COPY 1 /", "#ENV API_TOKEN=hunter2hunter2", "#ENV API_TOKEN=")
    found = look(image({}, made_by=history, Env=["API_TOKEN="]))
    assert [(one.path, one.shown) for one in found.findings] == [("history: value of API_TOKEN", "hunt…")]


def test_an_image_without_a_configuration_of_its_own_is_fine() -> None:
    plain = image({})
    assert list(contents.in_configuration(plain)) == []
    assert isinstance(Finding("a", "b", 0, "", 1, ""), Finding)

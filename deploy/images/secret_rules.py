"""What a secret looks like: by the name of its file, by its own form, by the name it is given. Pure.

A rule is narrow on purpose: it names a form that nothing else has, so that what it finds is worth a refusal.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ops.build_client import NEVER

HIDDEN = "…"
_FOLDERS = tuple(name for name in NEVER if name in (".git", ".tidegate"))
_ASSIGNED = re.compile(rb"^\s*(?:export\s+)?[A-Za-z_]\w*\s*=[ \t]*[^\s#]", re.MULTILINE)
_SAMPLE = re.compile(r"(^|[.-])(example|sample|template|dist|defaults?|schema)$")
_SPEAKING = re.compile(
    r"(^|_)(PG)?(PASSWORD|PASSWD|PASSPHRASE|SECRET|TOKEN|CREDENTIALS?|(API|ACCESS|PRIVATE|SECRET|SIGNING|ENCRYPTION|AUTH)_?KEY)$",
    re.IGNORECASE,
)
_NO_VALUE = re.compile(r"(true|false|yes|no|none|null|\d{0,5}|/.*|\$.*|<.*|\*+|file:.*)", re.IGNORECASE)
_ASSIGNMENT = re.compile(r"(?<![\w$-])(?:--)?([A-Za-z_][\w-]*)=(\"[^\"]*\"|'[^']*'|[^\s\"';&|)]+)")
_LOGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s:@]*:(?!\$|<|\{)([^/\s\"']{3,})@")
_OTHERS_TESTS = re.compile(
    r"/(python\d[\d.]*|site-packages|dist-packages|node_modules|gems)/.*\b_?(tests?|testing|fixtures?|examples?|vectors)\b"
)


@dataclass(frozen=True)
class Form:
    """A form that secrets of a kind have: literals of which each has one, the whole form, and what makes it genuine."""

    kind: str
    literals: tuple[bytes, ...]
    pattern: re.Pattern[bytes]
    genuine: Callable[[bytes], bool]


@dataclass(frozen=True)
class Hit:
    """A secret: its kind, the line, and no more of it than tells which it is."""

    kind: str
    line: int
    shown: str


def _random(text: bytes) -> bool:
    """Tell a secret from what documents show in its place: it has many different characters, and does not say `example`."""
    return len(set(text[-24:])) >= 10 and b"EXAMPLE" not in text.upper() and b"XXXX" not in text.upper()


def _key(text: bytes) -> bool:
    """Tell a private key from a program or a text that only speaks of one: between its lines is nothing but base64."""
    body = text.partition(b"KEY")[2].partition(b"-----")[2].removesuffix(b"-----END").replace(b"\\n", b"\n")
    plain = re.sub(rb"^[\w-]+: .*$|^=\S{4}$|\s", b"", body, flags=re.MULTILINE)
    return re.fullmatch(rb"[A-Za-z0-9+/]{60,}={0,2}", plain) is not None


def _signed(text: bytes) -> bool:
    """Tell a signed JSON Web Token that lets somebody in from an example: it says who issued it, or until when it is good."""
    head, claims = (_part(part) for part in text.split(b".")[:2])
    return str(head.get("alg", "none")).lower() != "none" and bool({"iss", "exp"} & set(claims))


def _part(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(base64.urlsafe_b64decode(text + b"=="))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _form(kind: str, literals: str, pattern: str, genuine: Callable[[bytes], bool] = _random) -> Form:
    whole = rf"(?<![\w-]){pattern}(?![\w-])" if genuine is not _key else pattern
    return Form(kind, tuple(literals.encode().split()), re.compile(whole.encode()), genuine)


FORMS = (
    _form("private key", "-----BEGIN",
          r"-----BEGIN (?:[A-Z]{2,9} ){0,2}PRIVATE KEY(?: BLOCK)?-----[^\0]{60,20000}?-----END", _key),
    _form("age key", "AGE-SECRET-KEY-1", r"AGE-SECRET-KEY-1[02-9AC-HJ-NP-Z]{58}"),
    _form("AWS access key", "AKIA", r"AKIA[A-Z0-9]{16}"),
    _form("GitHub token", "ghp_ gho_ ghu_ ghs_ ghr_", r"gh[pousr]_[A-Za-z0-9]{36,251}"),
    _form("GitHub token", "github_pat_", r"github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}"),
    _form("GitLab token", "glpat-", r"glpat-[\w-]{20,}"),
    _form("Slack token", "xox", r"xox[abeprs]-(?:\d{10,14}-){1,3}[0-9A-Za-z]{20,}"),
    _form("Slack webhook", "hooks.slack.com", r"hooks\.slack\.com/services/T\w{6,}/B\w{6,}/\w{20,}"),
    _form("Stripe key", "k_live_", r"[sr]k_live_[0-9A-Za-z]{24,}"),
    _form("npm token", "npm_", r"npm_[A-Za-z0-9]{36}"),
    _form("PyPI token", "pypi-AgE", r"pypi-AgE[\w-]{50,}"),
    _form("signed web token", "eyJ", r"eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{20,}", _signed),
)  # fmt: skip
_BY_NAME = (  # files that only hold secrets when there is a login in them
    (re.compile(r"(^|/)\.npmrc$"), re.compile(rb"(?i)(_authtoken|_auth|_password)\s*=\s*(?!\$\{)\S+"), "npm login"),
    (re.compile(r"(^|/)\.pypirc$"), re.compile(rb"(?im)^\s*password\s*[=:]\s*\S+"), "PyPI login"),
    (re.compile(r"(^|/)[._]netrc$"), re.compile(rb"\bpassword\s+\S+"), "netrc login"),
    (re.compile(r"(^|/)\.git-credentials$"), re.compile(rb"://[^/\s:]+:[^/\s@]+@"), "git login"),
    (re.compile(r"(^|/)\.docker/config\.json$|(^|/)\.dockercfg$"), re.compile(rb'"(auth|identitytoken)"\s*:\s*"[^"]+"'), "registry login"),
    (re.compile(r"(^|/)\.aws/credentials$"), re.compile(rb"aws_secret_access_key\s*=\s*\S+"), "AWS login"),
    (re.compile(r"(^|/)\.pgpass$"), re.compile(rb"(?m)^(?:[^:\n]*:){4}\S+"), "PostgreSQL login"),
)  # fmt: skip


def in_file(path: str, data: bytes) -> Iterator[Hit]:
    """Yield the secrets of a file: at most one for its name, and each that its content shows."""
    by_name = _named(path, data)
    if by_name:
        yield by_name
        return
    quiet = _OTHERS_TESTS.search(f"/{path}")
    yield from (hit for hit in in_text(data) if not (quiet and hit.kind == "private key"))


def in_text(data: bytes) -> Iterator[Hit]:
    """Yield the secrets that are told by their form."""
    for form in FORMS:
        if any(literal in data for literal in form.literals):
            for found in form.pattern.finditer(data):
                if form.genuine(found[0]):
                    shown = "" if form.kind == "private key" else found[0][:4].decode("ascii", "replace") + HIDDEN
                    yield Hit(form.kind, data.count(b"\n", 0, found.start()) + 1, shown)


def _named(path: str, data: bytes) -> Hit | None:
    name = path.rpartition("/")[2]
    if (name == ".env" or (name.startswith(".env.") and not _SAMPLE.search(name))) and (found := _ASSIGNED.search(data)):
        return Hit("environment file", data.count(b"\n", 0, found.start()) + 1, "")
    if folder := next((part for part in path.split("/")[:-1] if part in _FOLDERS), ""):
        return Hit(f"{folder} folder", 0, "")
    for pattern, login, kind in _BY_NAME:
        if pattern.search(path) and (found := login.search(data)):
            return Hit(kind, data.count(b"\n", 0, found.start()) + 1, "")
    return None


def speaks_of_a_secret(name: str) -> bool:
    """Tell whether a variable's name says that its value is secret."""
    return _SPEAKING.search(name.replace("-", "_")) is not None


def in_assignment(name: str, value: str) -> Hit | None:
    """Return the secret in a variable: one by its name, or a login in an address."""
    plain = value.strip("\"'")
    if speaks_of_a_secret(name) and not _NO_VALUE.fullmatch(plain):
        return Hit(f"value of {name}", 0, plain[:4] + HIDDEN if len(plain) > 8 else "")
    if _LOGIN.search(value):
        return Hit(f"password in {name}", 0, "")
    return next(in_text(value.encode()), None)


def in_command(text: str) -> Iterator[Hit]:
    """Yield the secrets in a step of an image's history: assignments, build arguments, options, logins in addresses, forms."""
    hits = [in_assignment(name, value) for name, value in _ASSIGNMENT.findall(text)]
    seen = {hit for hit in hits if hit}
    if _LOGIN.search(_ASSIGNMENT.sub("", text)):
        seen.add(Hit("password in an address", 0, ""))
    yield from sorted(seen | set(in_text(text.encode())), key=lambda hit: (hit.kind, hit.shown))


def masked(text: str) -> str:
    """Return an instruction without the secrets in it."""

    def hide(found: re.Match[str]) -> str:
        return f"{found[1]}={HIDDEN}" if in_assignment(found[1], found[2]) else found[0]

    shown = _ASSIGNMENT.sub(hide, text)
    for form in FORMS:
        shown = form.pattern.sub(HIDDEN.encode(), shown.encode()).decode()
    return _LOGIN.sub(lambda found: found[0].replace(found[1], HIDDEN), shown)

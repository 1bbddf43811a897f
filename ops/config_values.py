"""Checks of single configuration values; each returns the value or raises ValueError saying what was expected.

What passes here is later put into nginx files, container names and ssh command lines, so the patterns admit
only what means nothing there. `fullmatch` throughout: `$` would let a trailing newline in.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from ipaddress import ip_address as parsed_address

_NAME = re.compile(r"[a-z](?:[a-z0-9-]{0,29}[a-z0-9])?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_VOLUME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,63}")
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?")
_URL_PATH = re.compile(r"/(?:[A-Za-z0-9._~/?=&:@+,-]|%[0-9A-Fa-f]{2}){0,1000}")
_URL = re.compile(r"https?://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?/?")
_IMAGE = re.compile(
    r"(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::[0-9]{1,5})?/)?"
    r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*"
)
_RECIPIENT = re.compile(r"age1[02-9ac-hj-np-z]{58}|ssh-ed25519 AAAA[A-Za-z0-9+/]{60,80}={0,2}(?: [!-~]+)?")

_TAKEN_APPS = {"edge", "metrics", "monitoring", "sites", "tidegate"}  # folders in /srv/tidegate and containers named tidegate-…
_TAKEN_PROCESSES = {"web", "migrate"}

A_NAME = "a name of at most 31 small letters, digits and hyphens, starting with a letter"
A_VARIABLE = "the name of an environment variable: letters, digits and underscores, not starting with a digit"


def name(value: str) -> str:
    """Check the name of an environment."""
    return _matching(_NAME, value, A_NAME)


def app_name(value: str) -> str:
    """Check the name of an app: also a folder and part of container names on the servers."""
    name(value)
    if value in _TAKEN_APPS or value.startswith("tidegate-"):
        raise ValueError("a name that Tidegate does not use itself (edge, metrics, monitoring, sites, tidegate, tidegate-…)")
    return value


def process_name(value: str) -> str:
    """Check the name of an extra process."""
    name(value)
    if value in _TAKEN_PROCESSES:
        raise ValueError("a name other than web and migrate, which Tidegate uses itself")
    return value


def variable(value: str) -> str:
    """Check the name of an environment variable or secret."""
    _matching(_VARIABLE, value, A_VARIABLE)
    if value.upper().startswith("TIDEGATE_"):
        raise ValueError("a name that does not start with TIDEGATE_, which is reserved")
    return value


def literal(value: str) -> str:
    """Check text that reaches a program as it is: anything but NUL and what UTF-8 cannot say."""
    return _matching(re.compile(r"[^\0\ud800-\udfff]*"), value, "text without NUL")


def volume(value: str) -> str:
    """Check a volume's name."""
    return _matching(_VOLUME, value, "a volume name of small letters, digits, dots, underscores and hyphens")


def mount_path(value: str) -> str:
    """Check where a volume is mounted: absolute, plain and not the root."""
    expected = 'an absolute path without "..", ":" or control characters, such as "/app/data"'
    parts = value.removeprefix("/").removesuffix("/").split("/")
    plain = value.isprintable() and not set(value) & set(":\\")
    if not value.startswith("/") or not plain or {"", ".", ".."} & set(parts):
        raise ValueError(expected)
    return "/" + "/".join(parts)


def container(value: str) -> str:
    """Check a container's name."""
    return _matching(re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}"), value, "a container's name, as docker ps shows it")


def place_in_volume(value: str) -> str:
    """Check a file or folder inside a volume: relative, without a way out of it."""
    plain = value.strip("/")
    if not value.isprintable() or value.startswith("/") or {"", ".", ".."} & set(plain.split("/")):
        raise ValueError('a path inside the volume, without a leading "/" and without "..", such as "blog.db"')
    return plain


def place_on_server(value: str) -> str:
    """Check a file or folder of a server."""
    if not value.isprintable() or not value.startswith("/") or {"", ".", ".."} & set(value.strip("/").split("/")):
        raise ValueError('an absolute path of the server without "..", since no volume is named, such as "/srv/shop/shop.db"')
    return "/" + value.strip("/")


def recipient(value: str) -> str:
    """Check a public key that backups are encrypted to."""
    return _matching(_RECIPIENT, value, 'a public key: "age1…" as age-keygen -y prints it, or "ssh-ed25519 AAAA…"')


def time_of_day(value: str) -> str:
    """Check a time of day."""
    return _matching(re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]"), value, 'a time of day in UTC such as "03:00"')


def file_path(value: object) -> object:
    """Check a path before it becomes a Path: not empty, printable."""
    text = str(value)
    if not text or not text.isprintable():
        raise ValueError("a path without control characters")
    return value


def url_path(value: str) -> str:
    """Check the path of a URL; it also stands in nginx files."""
    return _matching(_URL_PATH, value, 'a URL path that starts with "/" and needs no quoting, such as "/health"')


def metrics_path(value: str) -> str:
    """Check the path of an app's figures: nginx is told to hide it, and compares what is left of a request without `?`, `%`, `//`, `..`."""
    return _matching(
        re.compile(r"(?!.*/(?:/|\.{1,2}(?:/|$)))/[A-Za-z0-9._~/@,-]{1,200}"), value, 'a plain path such as "/metrics"'
    )


def url(value: str) -> str:
    """Check the URL under which a server's edge is reached."""
    return _matching(_URL, value, "a URL such as http://127.0.0.1:8080, without a path").rstrip("/")


def url_with_path(value: str) -> str:
    """Check a URL that may have a path, but no credentials."""
    expected = "a URL such as https://example.com/runbooks, without user and password"
    return _matching(re.compile(r"https?://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?:/[!-~]*)?"), value, expected)


def image(value: str) -> str:
    """Check an image's name without a tag."""
    expected = "an image name without tag or digest (the version is its tag), such as registry.example.com/team/blog"
    return _matching(_IMAGE, value[:256], expected)


def domain(value: str) -> str:
    """Check a domain and return it in small letters."""
    if value.startswith("*"):
        raise ValueError("a single host name; wildcards are not supported, list each name in domains")
    if not value.isascii():
        raise ValueError(f"a host name in ASCII{_punycode(value)}")
    lower = value.lower()
    if len(lower) > 253 or not all(_LABEL.fullmatch(label) for label in lower.split(".")):
        raise ValueError("a host name such as blog.example.com")
    return lower


def user(value: str) -> str:
    """Check an SSH user."""
    return _matching(_USER, value, "a user name of letters, digits, dots, underscores and hyphens")


def address(value: str) -> str:
    """Check a server's address: host name, ssh_config alias, IPv4, or IPv6 without brackets."""
    if _HOST.fullmatch(value) or _is_ipv6(value):
        return value
    raise ValueError("a host name or an IP address, without spaces and not starting with a hyphen")


def ip_address(value: str) -> str:
    """Check an IP address."""
    expected = "an IP address of the server's own, such as 10.0.0.5"
    try:
        found = parsed_address(value)
    except ValueError:
        raise ValueError(expected) from None
    if found.is_unspecified or found.is_loopback or found.is_multicast or "%" in value:
        raise ValueError(expected)
    return str(found)


def metric(value: str) -> str:
    """Check the name of a metric."""
    return _matching(re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,199}"), value, "a metric's name, such as http_requests_total")


def label(value: str) -> str:
    """Check the name of a metric's label."""
    return _matching(re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]{0,99}"), value, "a label's name, such as code")


def mail_address(value: str) -> str:
    """Check an address for mail, as far as its form tells."""
    return _matching(re.compile(r"[^\s@<>,\"]{1,64}@[A-Za-z0-9.-]{1,253}"), value, "a mail address such as oncall@example.com")


def smarthost(value: str) -> str:
    """Check a mail server with its port."""
    return _matching(re.compile(r"[A-Za-z0-9.-]{1,253}:[0-9]{1,5}"), value, "a mail server with its port: smtp.example.com:587")


def host_parts(text: str) -> dict[str, str | int]:
    """Split "user@address:port" (IPv6 in brackets when a port follows) into its parts, which are checked later."""
    login, at, rest = text.rpartition("@")
    match = re.fullmatch(r"\[([^\[\]]*)\](?::([0-9]{1,5}))?|([^:\[\]]*)(?::([0-9]{1,5}))?", rest)
    if match is None and not _is_ipv6(rest):
        raise ValueError('a server such as "deploy@203.0.113.10:22" or "deploy@[2001:db8::1]:22"')
    parts: dict[str, str | int] = {"address": rest if match is None else match[1] or match[3] or ""}
    if match and (port := match[2] or match[4]):
        parts["port"] = int(port)
    return parts | {"user": login} if at else parts


def _is_ipv6(text: str) -> bool:
    bare, percent, zone = text.partition("%")
    if percent and not re.fullmatch(r"[A-Za-z0-9_.-]+", zone):
        return False
    try:
        IPv6Address(bare)
    except ValueError:
        return False
    return True


def _punycode(value: str) -> str:
    try:
        return f", in punycode: {domain(value.lower().encode('idna').decode('ascii'))}"
    except ValueError:
        return " (punycode, xn--…)"


def _matching(pattern: re.Pattern[str], value: str, expected: str) -> str:
    if pattern.fullmatch(value) is None:
        raise ValueError(expected)
    return value

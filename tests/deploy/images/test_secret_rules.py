"""What is a secret is found, and what only looks like one is not. Tokens are put together here, so that nobody takes them for real."""

from __future__ import annotations

import base64
import json

import pytest

from deploy.images.secret_rules import in_assignment, in_command, in_file, in_text, masked

RANDOM = "q7Zk2mX9vB4nT1sR8wL5yH3pJ6dF0gC7aEuI2oQxKbNc"
BODY = "\n".join(base64.b64encode(bytes(range(number, number + 48))).decode() for number in range(4))


def pem(kind: str = "", body: str = BODY) -> str:
    name = f"{kind} PRIVATE KEY".strip()
    return f"-----{'BEGIN'} {name}-----\n{body}\n-----END {name}-----\n"


def jwt(head: dict[str, str], claims: dict[str, object]) -> str:
    parts = (base64.urlsafe_b64encode(json.dumps(one).encode()).decode().rstrip("=") for one in (head, claims))
    return ".".join((*parts, RANDOM))


TOKENS = {
    "GitHub token": "ghp_" + RANDOM[:36],
    "GitLab token": "glpat-" + RANDOM[:20],
    "Slack token": "xoxb-" + "12345678901-23456789012-" + RANDOM[:24],
    "Slack webhook": "hooks.slack.com/services/T" + "0ABCDEF12/B0ABCDEF12/" + RANDOM[:24],
    "Stripe key": "sk_live_" + RANDOM[:24],
    "npm token": "npm_" + RANDOM[:36],
    "PyPI token": "pypi-AgE" + RANDOM + RANDOM,
    "AWS access key": "AKIA" + "Q7ZK2MX9VB4NT1SR",
    "age key": "AGE-SECRET-KEY-1" + "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7LQPZRY9X8GF2TVDW0S3JN54KHCE"[:58],
    "signed web token": jwt({"alg": "HS256"}, {"iss": "shop", "sub": "1"}),
    "private key": pem(),
}


def kinds(text: str) -> list[str]:
    return [hit.kind for hit in in_text(text.encode())]


@pytest.mark.parametrize("kind", TOKENS)
def test_well_known_forms_are_found_wherever_they_stand(kind: str) -> None:
    assert kinds(f"a = 1\ntoken: '{TOKENS[kind]}'\n") == [kind]


def test_a_finding_tells_its_line_and_four_characters_at_most() -> None:
    (hit,) = in_text(f"\n\nx = {TOKENS['GitHub token']}".encode())
    assert (hit.line, hit.shown) == (3, "ghp_…")
    (key,) = in_text(pem().encode())
    assert key.shown == ""


def test_a_fine_grained_token_of_github_is_found() -> None:
    assert kinds("github_pat_" + RANDOM[:22] + "_" + (RANDOM + RANDOM)[:59]) == ["GitHub token"]


@pytest.mark.parametrize(
    "text",
    [
        pem("RSA"),
        pem("EC"),
        pem("OPENSSH"),
        pem("ENCRYPTED"),
        pem("RSA", f"Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\n{BODY}"),
        json.dumps({"key": pem()}),
        "\n".join(f"    {line}" for line in pem().splitlines()),
        f"-----{'BEGIN'} PGP PRIVATE KEY BLOCK-----\nVersion: 1\n\n{BODY}\n=aB3d\n-----END PGP PRIVATE KEY BLOCK-----",
    ],
)
def test_private_keys_are_found_as_they_are_written(text: str) -> None:
    assert kinds(text) == ["private key"]


@pytest.mark.parametrize(
    "text",
    [
        "-----" + "BEGIN PRIVATE KEY-----\\0-----BEGIN RSA PRIVATE KEY-----" + "\0" * 100 + "-----END RSA PRIVATE KEY-----",
        pem(body="put the key here, please, between these two lines, as it is told in the manual"),
        f"-----{'BEGIN'} CERTIFICATE-----\n{BODY}\n-----END CERTIFICATE-----",
        f"-----{'BEGIN'} PUBLIC KEY-----\n{BODY}\n-----END PUBLIC KEY-----",
        "AKIA" + "IOSFODNN7EXAMPLE",
        "ghp_" + "x" * 36,
        "ghp_" + "XXXXXXXXXXXXabcdefghijklmnopqrstuvwx",
        "xoxp-" + "1234-1234-1234-4ddbc191d40ee098cbaae6f3523ada2d",
        "prefix_npm_" + RANDOM[:36],
        jwt({"alg": "none"}, {"iss": "shop"}),
        jwt({"alg": "HS256"}, {"some": "payload"}),
        "eyJhbGciOiJIUzI1NiJ9" + ".eyJub3QganNvbg.c2lnbmF0dXJlLi4uLi4uLi4u",
    ],
)
def test_what_only_looks_like_one_is_not_found(text: str) -> None:
    assert kinds(text) == []


@pytest.mark.parametrize(
    ("path", "text", "kind"),
    [
        ("app/.env", "# comment\nexport DEBUG=\nSECRET=1\n", "environment file"),
        ("app/.env.production", "A=1", "environment file"),
        ("app/.git/config", "", ".git folder"),
        ("app/.tidegate/x", "", ".tidegate folder"),
        ("root/.npmrc", "//registry.npmjs.org/:_authToken=abc", "npm login"),
        ("root/.pypirc", "[pypi]\nusername = __token__\npassword = abc\n", "PyPI login"),
        ("root/.netrc", "machine example.com login me password secret", "netrc login"),
        ("root/.docker/config.json", '{"auths": {"x": {"auth": "YTpi"}}}', "registry login"),
        ("root/.git-credentials", "https://me:secret@example.com", "git login"),
        ("root/.aws/credentials", "aws_secret_access_key = abc", "AWS login"),
        ("root/.pgpass", "db:5432:shop:shop:secret\n", "PostgreSQL login"),
    ],
)
def test_files_that_hold_secrets_are_known_by_their_names(path: str, text: str, kind: str) -> None:
    assert [hit.kind for hit in in_file(path, text.encode())] == [kind]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("app/.env", "# nothing\nDEBUG=\n"),
        ("app/.env.example", "SECRET=1"),
        ("app/env", "SECRET=1"),
        ("app/.gitignore", "x"),
        ("root/.npmrc", "//registry.npmjs.org/:_authToken=${NPM_TOKEN}\nfund=false"),
        ("root/.docker/config.json", '{"credsStore": "pass"}'),
        ("root/.pypirc", "[distutils]\nindex-servers = pypi\n"),
    ],
)
def test_files_of_those_names_without_a_secret_are_fine(path: str, text: str) -> None:
    assert list(in_file(path, text.encode())) == []


def test_keys_that_dependencies_test_with_are_fine_and_tokens_there_are_not() -> None:
    path = "opt/venv/lib/python3.13/site-packages/server/tests/key.pem"
    for one in (path, "usr/local/lib/python3.13/test/certdata/keycert.pem", "app/node_modules/tls/test/fixtures/a.pem"):
        assert list(in_file(one, pem().encode())) == []
    assert [hit.kind for hit in in_file(path, TOKENS["npm token"].encode())] == ["npm token"]
    assert [hit.kind for hit in in_file("app/tests/key.pem", pem().encode())] == ["private key"]


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("DB_PASSWORD", "hunter2hunter2", "value of DB_PASSWORD"),
        ("PGPASSWORD", "hunter2hunter2", "value of PGPASSWORD"),
        ("api-key", "hunter2", "value of api-key"),
        ("DATABASE_URL", "postgres://shop:hunter2@db/shop", "password in DATABASE_URL"),
        ("DATABASE_URL", "postgres://shop:hu@nter:2@db/shop", "password in DATABASE_URL"),
        ("MISC", TOKENS["Stripe key"], "Stripe key"),
    ],
)
def test_variables_that_hold_secrets_are_found(name: str, value: str, kind: str) -> None:
    hit = in_assignment(name, value)
    assert hit
    assert hit.kind == kind
    assert "hunter2" not in hit.shown


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GPG_KEY", "A035C8C19219BA821ECEA86B64E628F8D684696D"),
        ("DB_PASSWORD_FILE", "/run/secrets/db"),
        ("DB_PASSWORD", "/run/secrets/db"),
        ("API_TOKEN", "$TOKEN"),
        ("API_TOKEN", ""),
        ("TOKEN_SECONDS", "123456789"),
        ("CSRF_TOKEN", "true"),
        ("DATABASE_URL", "postgres://shop@db/shop"),
        ("DATABASE_URL", "postgres://shop:${PASSWORD}@db/shop"),
        ("PYTHON_SHA256", "c3d4"),
    ],
)
def test_variables_that_hold_none_are_fine(name: str, value: str) -> None:
    assert in_assignment(name, value) is None


def test_a_build_argument_and_an_option_in_a_step_are_found_and_masked() -> None:
    step = f"RUN |2 VERSION=1 NPM_TOKEN=hunter2hunter2 npm ci --api-key='hunter2' https://me:hunter2@example.com {TOKENS['npm token']}"
    assert [hit.kind for hit in in_command(step)] == [
        "npm token", "password in an address", "value of NPM_TOKEN", "value of api-key",
    ]  # fmt: skip
    assert masked(step) == "RUN |2 VERSION=1 NPM_TOKEN=… npm ci api-key=… https://me:…@example.com …"


def test_a_login_in_an_address_of_a_step_is_found_once_and_masked_whatever_its_password() -> None:
    plain, option = "RUN curl https://me:p@ss:w0rd@example.com/x", "RUN pip install --index-url=https://me:hunter2@example.com it"
    assert [hit.kind for hit in in_command(plain)] == ["password in an address"]
    assert [hit.kind for hit in in_command(option)] == ["password in index-url"]
    assert masked(plain) == "RUN curl https://me:…@example.com/x"


def test_steps_that_read_a_secret_from_its_mount_are_fine() -> None:
    step = 'RUN export NPM_TOKEN="$(cat /run/secrets/npm)" && apt-get install curl=8.14.1-2 && TOKEN=$TOKEN make'
    assert list(in_command(step)) == []
    assert masked(step) == step

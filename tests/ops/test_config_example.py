"""ops.example.toml is the manual: complete, true and loadable."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pytest
from pydantic import BaseModel, TypeAdapter

from ops import config
from ops.config import App, Environment, Project, load

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "ops.example.toml").read_text()
NOT_WRITTEN = {(Environment, "name"), (Environment, "project_root")}
TABLES: dict[str, type[BaseModel]] = {
    "app": App,
    "app.health": config.Health,
    "app.drain": config.Drain,
    "app.migrate": config.Migrate,
    "app.processes.worker": config.Process,
    "app.edge": config.Edge,
    "app.prober": config.Prober,
    "app.services": config.Services,
    "app.backup": config.Backup,
    "app.backup.keep": config.Keeping,
    "app.backup.keep.daily": config.Keep,
    **{f"app.backup.sources.{name}": config.BackupSource for name in ("shop", "uploads", "main", "legacy")},
    "app.backup.offsite": config.Offsite,
    "app.metrics": config.AppMetrics,
    "app.objectives": config.Objectives,
    "environments.production": Environment,
    "environments.production.tls": config.Tls,
    "environments.production.app": App,
    "environments.staging": Environment,
    "environments.staging.app": App,
    "environments.staging.notifications": config.Notifications,
    "environments.staging.monitoring": config.Monitoring,
    "secrets.SECRET_KEY": config.SecretSource,
    "environments.staging.secrets.SECRET_KEY": config.SecretSource,
    "notifications": config.Notifications,
    "monitoring": config.Monitoring,
    "monitoring.slack": config.Slack,
    "monitoring.email": config.Email,
    "monitoring.webhooks.pager": config.Webhook,
    "monitoring.grafana": config.PublicGrafana,
    "monitoring.remote_write": config.RemoteWrite,
    "monitoring.object_storage": config.ObjectStorage,
}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    for name in ("src/Dockerfile", "nginx/extra.conf", "tls/chain.pem", "tls/grafana.pem", "services.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "ops.toml").write_text(TEXT)
    return load(tmp_path / "ops.toml", {"HOME": "/home/ada"})


def models() -> list[type[BaseModel]]:
    found: list[type[BaseModel]] = []

    def visit(annotation: Any) -> None:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel) and annotation not in found:
            found.append(annotation)
            for field in annotation.model_fields.values():
                visit(field.annotation)
        for part in get_args(annotation):
            visit(part)

    visit(Environment)
    return found


def written_keys(model: type[BaseModel]) -> set[str]:
    """The keys that stand in the example's tables of a model; inline tables count for hosts."""
    keys = set().union(*(table_at(name) for name, kind in TABLES.items() if kind is model))
    if model is config.HostAddress:
        keys = {key for host in table_at("environments.production")["hosts"] if isinstance(host, dict) for key in host}
    return keys


def table_at(name: str) -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads(TEXT)
    for part in name.split("."):
        table = table[part]
    return table


def stated_defaults() -> list[tuple[str, str, str]]:
    table, found = "", []
    for line in TEXT.splitlines():
        if header := re.match(r"\[([\w.]+)\]", line):
            table = header[1]
        stated = re.search(r"\(default: (.+)\)$", line)
        key = re.match(r"(\w+) = ", line)
        if stated and (key or header):
            above, _, last = table.rpartition(".")
            found.append((table, key[1], stated[1]) if key else (above, last, stated[1]))
    return found


def parsed(field: FieldInfo, text: str) -> object:
    if text == "none":
        return None
    value = {} if text == "{}" else tomllib.loads(f"x = {text}")["x"]
    kind: TypeAdapter[object] = TypeAdapter(field.rebuild_annotation())
    return kind.validate_python(value)


def test_the_example_loads_with_all_its_environments(project: Project) -> None:
    production, staging = project.environment("production"), project.environment("staging")
    assert project.environments == ("production", "staging")
    assert production.hosts[1].name == "deploy@203.0.113.11:2222"
    assert production.hosts[1].identity == Path("/home/ada/.ssh/id_ed25519")
    assert production.app.environment == {"SHOP_TITLE": "Shop"}
    assert staging.app.image == "registry.example.com/team/shop"
    assert staging.notifications.on == ("failure",)
    assert staging.secrets["SECRET_KEY"].command == ("pass", "show", "shop/staging/secret-key")


@pytest.mark.parametrize("model", models(), ids=lambda model: model.__name__)
def test_every_key_stands_in_the_example(model: type[BaseModel]) -> None:
    fields = {name for name in model.model_fields if (model, name) not in NOT_WRITTEN}
    assert fields <= written_keys(model)


@pytest.mark.parametrize(("table", "key", "text"), stated_defaults())
def test_a_stated_default_is_the_true_one(table: str, key: str, text: str) -> None:
    field = TABLES[table].model_fields[key]
    assert not field.is_required()
    assert parsed(field, text) == field.get_default(call_default_factory=True)


def test_every_default_of_a_simple_key_is_stated() -> None:
    stated = {(TABLES[table], key) for table, key, _ in stated_defaults()}
    tables = {config.HostAddress, *(field_model for field_model in models() if field_model is Environment)}
    optional = {
        (model, name)
        for model in models()
        if model not in tables
        for name, field in model.model_fields.items()
        if not field.is_required()
        and not isinstance(field.default, BaseModel)
        and name not in ("migrate", "processes", "webhooks")
    }
    assert optional <= stated


def test_the_bundled_ops_toml_loads() -> None:
    app = load(ROOT / "ops.toml", {}).app
    assert app.name == "blog"
    assert app.migrate
    assert app.migrate.on == "each"
    assert app.processes["worker"].command == ("python3", "-m", "blog", "worker")


def test_the_bundled_configuration_for_postgresql_differs_in_its_database_only() -> None:
    plain, other = load(ROOT / "ops.toml", {}).app, load(ROOT / "ops.postgres.toml", {}).app
    changed = {"name", "environment", "secrets", "volumes", "migrate", "services", "backup"}
    assert plain.model_dump(exclude=changed) == other.model_dump(exclude=changed)
    assert other.services
    assert other.services.compose == ROOT / "docker/services.yaml"
    assert (other.secrets, other.services.secrets) == (("DATABASE_URL",), ("POSTGRES_PASSWORD",))


def test_the_environments_in_the_comments_of_the_bundled_ops_toml_load(tmp_path: Path) -> None:
    text = (ROOT / "ops.toml").read_text()
    commented = "\n".join(re.findall(r"^# (\[env.*|\w+ = .*)$", text, re.MULTILINE))
    (tmp_path / "example").mkdir()
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker/Dockerfile").touch()
    (tmp_path / "ops.toml").write_text(f"{text}\n{commented}")
    assert load(tmp_path / "ops.toml", {}).environments == ("staging", "production")

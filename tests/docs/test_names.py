"""What the documents call by its name is there: tasks, keys, options, variables, files, sessions, containers."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import get_args

import pytest
import yaml
from invoke.exceptions import ParseError
from pydantic import BaseModel

import tasks
from deploy.audit.ignores import Settings
from monitoring import stack
from ops import names
from ops.config import App, Environment, HostAddress, Monitoring, Notifications, SecretSource
from ops.stand_ins import STAND_IN
from tests.docs.documents import DOCUMENTS, ROOT, all_blocks, inline, name, shell_commands
from tests.docs.languages import SOURCES, writes
from tests.docs.test_commands import TASKS, assert_parses

ANY = "*"
NOT_KEYS = {"audit.toml", "backup.json", "docker.io"}  # files, a package of Debian's
YOURS = {
    "services.yaml",
    "example/tidegate",
    ".grype.yaml",
}  # a project's Compose file, somebody's copy of this repository, a scanner's file
FOREIGN = {"--no-cache"}  # docker build's
INTERNAL = {"TIDEGATE_KNOWN_HOSTS_FILE"}  # what a command tells the programs that it starts

every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=name)


def models(annotation: object) -> Iterator[tuple[type[BaseModel], tuple[str, ...]]]:
    """Return the models in a type, and whether names of one's own stand between."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, ()
    for part in get_args(annotation):
        between = (ANY,) if getattr(annotation, "__origin__", None) is dict else ()
        yield from ((model, between + deeper) for model, deeper in models(part))


def below(model: type[BaseModel], above: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for key, field in model.model_fields.items():
        yield (*above, field.alias or key)
        for deeper, between in models(field.annotation):
            yield from below(deeper, (*above, field.alias or key, *between))
            if between:
                yield (*above, field.alias or key, *between)


@cache
def keys() -> set[tuple[str, ...]]:
    """Return every key and table that ops.toml can have, and those of audit.toml and budgets.toml."""
    tops: dict[tuple[str, ...], type[BaseModel]] = {
        ("app",): App, ("environments", ANY): Environment, ("monitoring",): Monitoring, ("notifications",): Notifications,
        ("secrets", ANY): SecretSource,
    }  # fmt: skip
    others = {*below(HostAddress, ("hosts",)), *below(Settings, ("audit",)), ("shop", "compressed_mb")}
    return {one for above, model in tops.items() for one in (above, *below(model, above))} | others


def fits(parts: list[str], end: tuple[str, ...]) -> bool:
    pairs = list(zip(parts, end, strict=True))
    return any(ours == theirs for ours, theirs in pairs) and all(theirs in (ours, ANY) or ours == "…" for ours, theirs in pairs)


def is_key(dotted: str) -> bool:
    """Say whether some key ends like this; what people name themselves, and an ellipsis, can be anything."""
    parts = dotted.split(".")
    return any(fits(parts, known[-len(parts) :]) for known in keys() if len(known) >= len(parts))


def tables() -> set[str]:
    """Return what the first part of a dotted name can be, if it is ours."""
    return {part for known in keys() for part in known[:-1] if part != ANY} | set(tasks.namespace.collections)


@every_document
def test_names_with_dots_are_tasks_or_keys_of_the_configuration(document: Path) -> None:
    dotted = {text for text in inline(document) if re.fullmatch(r"[a-z_]+(\.[a-z_-]+)+", text) and text.split(".")[0] in tables()}
    assert {text for text in dotted - TASKS - NOT_KEYS if not is_key(text)} == set()


@every_document
def test_tasks_that_are_named_without_inv_have_the_options_that_are_named_with_them(document: Path) -> None:
    for text in inline(document):
        task, _, options = text.partition(" ")
        if task in TASKS and "." in task and options and "…" not in options:
            assert_parses(["inv", task, *shlex.split(options)])


@every_document
def test_keys_and_tables_that_are_named_exist(document: Path) -> None:
    named = [text[1:-1] for text in inline(document) if re.fullmatch(r"\[[a-zA-Z_.…]+\]", text)]
    named += [key for text in inline(document) if re.match(r"[a-z_]+ = ", text) for key in tomllib.loads(text)]
    assert [one for one in named if not is_key(one)] == []


@every_document
def test_options_that_are_named_exist(document: Path) -> None:
    known = {flag for context in tasks.namespace.to_contexts() for flag in context.flags} | FOREIGN
    known |= {word for words in shell_commands(document) for word in words}
    named = {option for text in inline(document) for option in re.findall(r"(?<!\S)--[a-z][a-z-]+", text) if text.startswith("-")}
    assert {option for option in named - known if f'"{option}"' not in SOURCES} == set()


@every_document
def test_variables_of_tidegate_that_are_named_exist(document: Path) -> None:
    known = SOURCES + (ROOT / "noxfile.py").read_text()
    assert {one for one in re.findall(r"TIDEGATE_[A-Z_]*", document.read_text()) if not re.search(rf'"{one}\b', known)} == set()


def test_every_variable_that_people_can_set_is_in_a_document() -> None:
    texts = "".join(path.read_text() for path in [*DOCUMENTS, ROOT / "ops.example.toml"])
    read = set(re.findall(r'"(TIDEGATE_[A-Z_]+)"', SOURCES))
    assert sorted(one for one in read - INTERNAL if one not in texts) == []


@cache
def repository() -> set[str]:
    """Return the paths of the repository's files and folders."""
    tops = (top for top in ROOT.iterdir() if not top.name.startswith(".") or top.name in (".ci", ".github"))
    return {
        path.relative_to(ROOT).as_posix() for top in tops for path in (top, *top.rglob("*")) if "__pycache__" not in path.parts
    }


@every_document
def test_paths_that_are_named_exist(document: Path) -> None:
    tops = {path.partition("/")[0] for path in repository()}
    texts = [*inline(document), *(word for words in shell_commands(document) for word in words)]
    named = {text for text in texts if re.fullmatch(r"[\w.]+/[\w./-]*", text) and text.partition("/")[0] in tops}
    assert {path for path in named if path.rstrip("/") not in repository() | YOURS} == set()


@every_document
def test_files_that_are_named_without_their_folder_exist(document: Path) -> None:
    known = {path.rpartition("/")[2] for path in repository()} | YOURS
    named = {text for text in inline(document) if re.fullmatch(r"[\w.-]+\.(py|toml|ya?ml|md|sh)", text)}
    assert {file for file in named - known if f'"{file}"' not in SOURCES} == set()


@every_document
def test_files_and_units_on_a_server_are_those_that_the_code_makes(document: Path) -> None:
    text = re.sub(r"\bshop\b|(?<=/)shop(?=_)|/2\d+T\d+Z-\w+", "", document.read_text())  # an app and a backup of one's own
    found = re.findall(r"(?:/srv/tidegate|/etc/cron\.d|/var/log|/usr/local/lib/tidegate)/[\w./-]+|tidegate-backup-[\w.]+", text)
    assert {path for path in found if not all(map(writes, path.rstrip(".").split("/")))} == set()


@every_document
def test_labels_that_are_named_exist(document: Path) -> None:
    known = {STAND_IN, *(value for known, value in vars(names).items() if known.startswith("LABEL"))}
    assert set(re.findall(r"dev\.tidegate(?:\.[a-z-]+)?", document.read_text())) <= known


@cache
def services() -> set[str]:
    return set(yaml.safe_load(stack.FILE.read_text())["services"])


@every_document
def test_containers_of_the_stack_that_are_named_are_its_services(document: Path) -> None:
    assert set(re.findall(r"tidegate-monitoring-([a-z-]+)-1", document.read_text())) <= services()


@every_document
def test_modules_that_are_started_exist(document: Path) -> None:
    code = "\n".join([*inline(document), *(block.text for block in all_blocks(document))])
    named = set(re.findall(r"python3? -m ([\w.]+)", code)) - {"app", "shop", "venv"}
    folders = (ROOT, ROOT / "example")
    assert {one for one in named if not any(list(folder.glob(one.replace(".", "/") + "*")) for folder in folders)} == set()


@pytest.mark.parametrize(
    ("check", "wrong"),
    [
        (test_names_with_dots_are_tasks_or_keys_of_the_configuration, "`backup.undo`"),
        (test_names_with_dots_are_tasks_or_keys_of_the_configuration, "`app.health.tries`"),
        (test_tasks_that_are_named_without_inv_have_the_options_that_are_named_with_them, "`backup.verify --depth restore`"),
        (test_keys_and_tables_that_are_named_exist, "`approval = true`"),
        (test_keys_and_tables_that_are_named_exist, "`[app.metric]`"),
        (test_options_that_are_named_exist, "`--never-was`"),
        (test_variables_of_tidegate_that_are_named_exist, "`TIDEGATE_DEBUGGING=1`"),
        (test_paths_that_are_named_exist, "`deploy/undo.py`"),
        (test_paths_that_are_named_exist, "```sh\ndocker compose -f docker/undo.yaml up\n```"),
        (test_files_that_are_named_without_their_folder_exist, "`undo.py`"),
        (test_files_and_units_on_a_server_are_those_that_the_code_makes, "`/srv/tidegate/shop/undo.json`"),
        (test_labels_that_are_named_exist, "`docker ps --filter label=dev.tidegate.undo`"),
        (test_containers_of_the_stack_that_are_named_are_its_services, "`docker logs tidegate-monitoring-influx-1`"),
        (test_modules_that_are_started_exist, "`python -m deploy.undo`"),
    ],
)
def test_a_wrong_name_would_be_found(check: Callable[[Path], None], wrong: str, tmp_path: Path) -> None:
    document = tmp_path / "document.md"
    document.write_text(wrong)
    with pytest.raises((AssertionError, ParseError)):
        check(document)

"""What the documents say is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from deploy import docker_server, edge, edge_setup
from deploy.bootstrap import SUPPORTED
from deploy.show import TITLES
from monitoring import certificates, check, for_deploy, inventory, live, stack
from ops import errors, names
from ops.agent import main as agent
from ops.config import App
from tests.docs.documents import DOCUMENTS, ROOT, anchors, blocks, links, name, prose, table_rows
from tests.docs.languages import PACKAGES, SOURCES, writes

every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=name)
ARCHITECTURE = ROOT / "ARCHITECTURE.md"


def code_map() -> list[str]:
    """Return the paths in the code map; indentation is nesting."""
    block = next(one.text for one in blocks(ARCHITECTURE, "text") if one.text.startswith("tasks.py"))
    paths, above = [], [""]
    for line in block.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        above[depth:] = [(above[depth - 1] if depth else "") + line.split()[0]]
        paths.append(above[depth])
    return paths


def modules() -> set[str]:
    """Return every module of the packages."""
    return {path.relative_to(ROOT).as_posix() for folder in PACKAGES for path in (ROOT / folder).rglob("*.py")}


def tree() -> dict[int, list[str]]:
    """Return the meanings of each exit code, as the tree of errors draws them."""
    drawn = re.findall(r"[├└]── (\w+)\s+(\d+)\s+(.+)", errors.__doc__ or "")
    assert {kind: int(code) for kind, code, _ in drawn} == {kind: getattr(errors, kind).exit_code for kind, _, _ in drawn}, (
        "the tree in ops/errors.py is not what its classes say"
    )
    found: dict[int, list[str]] = {}
    for _, code, meaning in drawn:
        found.setdefault(int(code), []).append(re.split(r": |; ", meaning)[0])
    return found


def test_the_code_map_names_only_what_exists() -> None:
    assert [path for path in code_map() if not (ROOT / path).exists()] == []


def test_the_code_map_names_every_module_once() -> None:
    named = [path for path in code_map() if path.endswith(".py") and "/" in path]
    assert sorted(named) == sorted(modules())


@pytest.mark.parametrize(("document", "begins"), [("ARCHITECTURE.md", names.HOME), ("docs/backups.md", "2026")])
def test_files_on_a_server_are_those_that_the_code_writes(document: str, begins: str) -> None:
    (tree,) = [block.text for block in blocks(ROOT / document, "text") if block.text.startswith(begins)]
    paths = [re.sub(r"<\w+>-?|^ *(shop|uploads)", "", line.split()[0]) for line in tree.splitlines()[1:]]
    assert len(paths) > 5
    assert [path for path in paths if not all(map(writes, path.split("/")))] == []


@every_document
def test_every_link_within_the_repository_leads_somewhere(document: Path) -> None:
    for link in links(document):
        target, _, anchor = link.partition("#")
        if not target.startswith("https://"):  # of other sites nothing can be said without the network
            file = (document.parent / target).resolve() if target else document
            assert file.is_relative_to(ROOT), link
            assert file.exists(), link
            assert not anchor or anchor in anchors(file), link


def test_every_document_is_reached_from_the_readme() -> None:
    reached, ahead = set(), [ROOT / "README.md"]
    while ahead:
        document = ahead.pop()
        if document not in reached and document.suffix == ".md":
            reached.add(document)
            ahead += [
                (document.parent / link.partition("#")[0]).resolve()
                for link in links(document)
                if not link.startswith(("http", "#"))
            ]
    assert set(DOCUMENTS) <= reached


@pytest.mark.parametrize("document", ["README.md", "docs/deploy.md"])
def test_exit_codes_are_those_of_the_errors(document: str) -> None:
    rows = {int(row[0]): row[1] for row in table_rows((ROOT / document).read_text()) if row[0].isdigit()}
    assert set(rows) == {0, *tree()}
    assert [
        (code, meaning)
        for code, meanings in tree().items()
        for meaning in meanings
        if meaning.split(" and ")[0] not in rows[code]
    ] == []


def test_messages_that_troubleshooting_explains_are_those_of_the_code() -> None:
    cells = [row[0] for row in table_rows((ROOT / "docs/troubleshooting.md").read_text()) if row[0].startswith("`")]
    messages = [part for cell in cells for part in re.findall(r"`([^`]+)`", cell)]
    sources = re.sub(r"\{[^{}]*\}", "", SOURCES)
    assert len(messages) > 20
    assert [text for text in messages if re.sub(r"\([a-z]+\)", "", text).strip() not in sources and text not in sources] == []


@every_document
def test_defaults_that_are_told_are_the_defaults(document: Path) -> None:
    app = App(name="shop", port=3000)
    for table, key, seconds in re.findall(r"`(health|drain|edge|prober)\.(\w+)` \((\d+) s\)", prose(document)):
        assert getattr(getattr(app, table), key) == float(seconds), (table, key)


def test_numbers_that_are_told_are_those_of_the_code() -> None:
    text = {document.name: document.read_text() for document in DOCUMENTS}
    assert f"{agent.SILENCE:.0f} s." in text["ARCHITECTURE.md"]
    assert f"({agent.LAST_WORDS:.0f} s at most)" in text["ARCHITECTURE.md"]
    assert f"within {agent.SILENCE + agent.LAST_WORDS:.0f}" in text["troubleshooting.md"]
    assert f"within {docker_server.SWITCH_SECONDS:.0f} s" in text["troubleshooting.md"]
    assert docker_server.PROOFS == 10
    assert "answer with the new generation ten" in text["ARCHITECTURE.md"]
    for known in (names.NETWORK, names.EDGE, str(names.STATUS_PORT), names.LABEL_MANAGED, names.HOME, edge.MOUNT):
        assert known in text["ARCHITECTURE.md"], known
    for known in (*edge_setup.SUBNETS, edge_setup.IMAGE, str(names.STATUS_PORT)):
        assert known in text["servers.md"], known


def test_what_is_told_of_monitoring_is_so() -> None:
    text = {path: (ROOT / path).read_text() for path in ("ARCHITECTURE.md", "docs/monitoring.md", "docs/servers.md")}
    for known in (min(live.PORTS.values()), max(live.PORTS.values()), inventory.GATE_PORT):
        assert [path for path, told in text.items() if str(known) not in told] == [], known
    told = text["docs/monitoring.md"]
    assert f"{certificates.VALID.days} days, and renewed" in told
    assert certificates.RENEW.days == 365
    assert f"for {for_deploy.LASTS.seconds // 60} minutes at most" in told
    assert f"older than {check._LEFT_OVER // 60} minutes" in text["ARCHITECTURE.md"]


def test_memory_that_the_stack_takes_at_most_is_that_of_its_compose_file() -> None:
    services = yaml.safe_load(stack.FILE.read_text())["services"]
    told = {(row[0].strip("`"), row[1]) for row in table_rows((ROOT / "docs/monitoring.md").read_text())}
    assert {(name, one["mem_limit"]) for name, one in services.items()} <= told


@pytest.mark.parametrize("document", ["README.md", "docs/servers.md"])
def test_supported_systems_are_those_of_the_bootstrap(document: str) -> None:
    text = (ROOT / document).read_text()
    assert [release for releases in SUPPORTED.values() for release in releases if release not in text] == []


def test_phases_in_the_shown_run_are_those_of_a_deploy() -> None:
    shown = {
        match
        for block in blocks(ROOT / "README.md", "console")
        for match in re.findall(r"^  ✓ (.+?) {2,}[\d.]+ s$", block.text, re.MULTILINE)
    }
    assert shown
    assert shown <= set(TITLES.values())

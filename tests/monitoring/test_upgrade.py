"""Upgrades: what changes, and what is left when one fails or dies at any moment."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import pytest

from monitoring.images import Image, Lock, Running
from monitoring.upgrade import Begun, Change, Phase, go_back, go_on, plan, unfinished, upgrade
from ops.errors import Failed, NeedsPerson, Refused

OLD, NEW = "sha256:" + "0" * 64, "sha256:" + "1" * 64
LOCK: Lock = {"grafana": Image("graf", "2", NEW), "node": Image("node", "1", NEW), "loki": Image("loki", "1")}


class DeadError(BaseException):
    """The process is gone: nothing it does has an effect any more."""


@dataclass
class Server:
    """An engine and a disk, as far as an upgrade touches them. A new Grafana migrates its data when it starts."""

    tags: dict[str, str] = field(default_factory=lambda: {"graf:1": "g1", "node:1": "n1", "loki:1": "l1"})
    runs: dict[str, str] = field(default_factory=lambda: {"grafana": "g1", "node": "n1", "loki": "l1"})
    named: dict[str, str] = field(default_factory=lambda: {"grafana": "graf:1", "node": "node:1", "loki": "loki:1"})
    up: set[str] = field(default_factory=lambda: {"grafana", "node", "loki"})
    data: str = "as of g1"
    copied: str = ""
    held: dict[str, str] = field(default_factory=dict)
    told: str = ""


REGISTRY = {f"graf:2@{NEW}": "g2", f"node:1@{NEW}": "n2"}
DIGESTS = {"g1": (OLD,), "n1": (OLD,), "g2": (NEW,), "n2": (NEW,)}


class FakeStack:
    """A Stack that dies at its n-th effect: before it, in its middle (where it has one), or after it."""

    name = "server"

    def __init__(self, server: Server, dies_at: int = 0, *, broken: frozenset[str] = frozenset(), complaint: str = "") -> None:
        self.server = server
        self.effects = 0
        self._dies_at = dies_at
        self._broken = broken
        self._complaint = complaint

    @contextmanager
    def _effect(self) -> Iterator[None]:
        self._tick()
        yield
        self._tick()

    def _tick(self) -> None:
        self.effects += 1
        if self._dies_at and self.effects >= self._dies_at:
            raise DeadError

    def running(self) -> Mapping[str, Running]:
        known = self.server
        return {service: Running(known.named[service], id, DIGESTS.get(id, ())) for service, id in known.runs.items()}

    def note(self) -> str:
        if self._dies_at and self.effects >= self._dies_at:
            raise DeadError
        return self.server.told

    def write_note(self, text: str) -> None:
        with self._effect():
            self.server.told = text

    def bring(self, reference: str) -> None:
        with self._effect():
            self.server.tags[reference.partition("@")[0]] = REGISTRY[reference]

    def check(self, images: Mapping[str, str]) -> Sequence[str]:
        assert set(images.values()) <= self.server.tags.keys()
        return [self._complaint] if self._complaint else []

    def stop(self, services: Sequence[str]) -> None:
        for service in services:
            with self._effect():
                self.server.up.discard(service)

    def start(self, images: Mapping[str, str]) -> None:
        known = self.server
        for service, name in images.items():
            with self._effect():
                known.named[service], known.runs[service] = name, known.tags[name]
                known.up.add(service)
                if known.runs["grafana"] == "g2" and known.data != "half":
                    known.data = "migrated by g2"
        known.up |= known.runs.keys()

    def healthy(self) -> str:
        self._tick()
        known = self.server
        ill = [service for service, id in known.runs.items() if service not in known.up or id in self._broken]
        return f"{', '.join(ill)}: ill" if ill else ""

    def keeps_data(self, service: str) -> bool:
        return service == "grafana"

    def hold(self, service: str, old: Running) -> None:
        with self._effect():
            self.server.held[service] = old.id

    def snapshot(self, service: str) -> None:
        assert service not in self.server.up, "it would copy what is being written to"
        self.server.copied = "half"
        with self._effect():
            self.server.copied = self.server.data

    def put_back(self, service: str) -> None:
        assert service not in self.server.up, "it would replace what is being written to"
        self.server.data = "half"
        with self._effect():
            self.server.data = self.server.copied

    def give_back(self, old: Running) -> None:
        with self._effect():
            self.server.tags[old.name] = old.id

    def let_go(self, services: Sequence[str], unused: Sequence[str]) -> None:
        with self._effect():
            self.server.copied = ""
            self.server.held = {}
        for name in unused:
            self.server.tags.pop(name, None)


def yes(planned: Mapping[str, Sequence[Change]]) -> bool:
    return True


def quiet(text: str) -> None:
    return None


def runs_the_old(server: Server) -> bool:
    return (
        server.runs == {"grafana": "g1", "node": "n1", "loki": "l1"}
        and server.named == Server().named
        and server.data == "as of g1"
    )


def runs_the_new(server: Server) -> bool:
    return server.runs == {"grafana": "g2", "node": "n2", "loki": "l1"} and server.data == "migrated by g2"


def settled(server: Server) -> bool:
    return not server.told and server.up == {"grafana", "node", "loki"}


@pytest.mark.parametrize(
    ("running", "wanted", "changes"),
    [
        (Running("graf:1", "a"), Image("graf", "1"), False),
        (Running("graf:1", "a"), Image("graf", "2"), True),
        (Running("graf:1", "a"), Image("mirror/graf", "1"), True),
        (Running("graf:1", "a", (OLD,)), Image("graf", "1", OLD), False),
        (Running("graf:1", "a", (OLD,)), Image("graf", "1", NEW), True),  # the tag was published anew
        (Running("graf:1", "a", ()), Image("graf", "1", NEW), False),  # a stand-in, or sent from here
        (Running("graf:1", "a", (OLD,)), Image("graf", "1"), False),
    ],
)
def test_a_service_changes_when_it_runs_on_another_image_than_the_lock_files(
    running: Running, wanted: Image, changes: bool
) -> None:
    expected = (Change("grafana", running, wanted.reference),) if changes else ()
    assert plan({"grafana": running}, {"grafana": wanted}) == expected


def test_what_does_not_run_and_what_the_lock_file_lacks_stays_so() -> None:
    assert plan({"other": Running("x:1", "a")}, LOCK) == ()


def test_an_upgrade_runs_the_new_images_and_leaves_nothing_behind() -> None:
    server = Server()
    assert upgrade([FakeStack(server)], LOCK, yes, quiet)
    assert runs_the_new(server)
    assert settled(server)
    assert (server.copied, server.held, "graf:1" in server.tags, "node:1" in server.tags) == ("", {}, False, True)


def test_nothing_to_change_asks_nothing() -> None:
    stack = FakeStack(Server())
    assert upgrade([stack], {"loki": Image("loki", "1")}, lambda _: pytest.fail("asked"), quiet)
    assert stack.effects == 0


def test_a_no_changes_nothing() -> None:
    stack = FakeStack(Server())
    assert not upgrade([stack], LOCK, lambda planned: False, quiet)
    assert (stack.effects, stack.server) == (0, Server())


def test_a_configuration_that_the_new_images_refuse_stops_before_anything_is_stopped() -> None:
    first, second = FakeStack(Server()), FakeStack(Server(), complaint="grafana: no such option")
    second.name = "other"
    with pytest.raises(Refused, match="no such option"):
        upgrade([first, second], LOCK, yes, quiet)
    assert runs_the_old(first.server)
    assert settled(first.server)


@pytest.mark.parametrize("ill", ["g2", "n2"])
def test_new_images_that_do_not_become_healthy_are_undone_with_their_data(ill: str) -> None:
    server = Server()
    with pytest.raises(Failed, match="the old images are back") as raised:
        upgrade([FakeStack(server, broken=frozenset({ill}))], LOCK, yes, quiet)
    assert "ill" in raised.value.why
    assert runs_the_old(server)
    assert settled(server)
    assert server.copied == ""


def test_when_one_server_fails_the_next_is_not_touched_and_the_one_before_keeps_the_new() -> None:
    stacks = [FakeStack(Server()), FakeStack(Server(), broken=frozenset({"g2"})), FakeStack(Server())]
    for number, stack in enumerate(stacks):
        stack.name = f"server {number}"
    with pytest.raises(Failed, match="server 1"):
        upgrade(stacks, LOCK, yes, quiet)
    assert runs_the_new(stacks[0].server)
    assert runs_the_old(stacks[1].server)
    assert runs_the_old(stacks[2].server)


def test_old_images_that_are_ill_too_call_a_person_and_keep_the_copies() -> None:
    server = Server()
    with pytest.raises(NeedsPerson, match="--put-back"):
        upgrade([FakeStack(server, broken=frozenset({"g1", "g2"}))], LOCK, yes, quiet)
    assert server.copied == "as of g1"
    go_back(*(stack := FakeStack(server), unfinished([stack])["server"]), quiet)
    assert runs_the_old(server)
    assert settled(server)


def dead(act: Callable[[FakeStack], object], broken: frozenset[str] = frozenset()) -> Iterator[tuple[int, Server]]:
    """Yield what is left on a server when `act` dies at each of its effects, in turn."""
    whole = FakeStack(Server(), broken=broken)
    with suppress(Failed):
        act(whole)
    for moment in range(1, whole.effects + 1):
        server = Server()
        with suppress(DeadError, NeedsPerson):
            act(FakeStack(server, moment, broken=broken))
            pytest.fail("it did not die")
        yield moment, server


def begin(stack: FakeStack) -> bool:
    return upgrade([stack], LOCK, yes, quiet)


@pytest.mark.parametrize("broken", [frozenset(), frozenset({"g2"})], ids=["works", "fails"])
def test_wherever_an_upgrade_dies_the_old_images_can_be_put_back_with_their_data(broken: frozenset[str]) -> None:
    for moment, server in dead(begin, broken):
        stack = FakeStack(server)
        for begun in unfinished([stack]).values():
            go_back(stack, begun, quiet)
            assert runs_the_old(server), moment
        assert settled(server), moment
        assert runs_the_old(server) or runs_the_new(server), moment


def test_wherever_an_upgrade_dies_it_can_be_gone_on_with() -> None:
    for moment, server in dead(begin):
        stack = FakeStack(server)
        for begun in unfinished([stack]).values():
            go_on(stack, begun, quiet)
            assert runs_the_new(server), moment
        assert begin(stack)
        assert runs_the_new(server), moment
        assert settled(server), moment


def test_wherever_an_upgrade_dies_going_on_can_fail_and_still_go_back() -> None:
    for moment, server in dead(begin):
        stack = FakeStack(server, broken=frozenset({"g2"}))
        for begun in unfinished([stack]).values():
            with pytest.raises(Failed, match="the old images are back"):
                go_on(stack, begun, quiet)
            assert runs_the_old(server), moment


def test_wherever_a_failing_upgrade_dies_going_on_never_runs_the_new_on_half_the_data() -> None:
    for moment, server in dead(begin, frozenset({"n2"})):
        stack = FakeStack(server)
        for begun in unfinished([stack]).values():
            with suppress(Refused):
                go_on(stack, begun, quiet)
                assert runs_the_new(server), moment


def test_wherever_going_back_dies_too_it_can_be_repeated() -> None:
    for moment, left in dead(begin):
        if not left.told:
            continue
        for second in range(1, 20):
            server = copy.deepcopy(left)
            dying, stack = FakeStack(server, second), FakeStack(server)
            with suppress(DeadError):
                go_back(dying, unfinished([stack])["server"], quiet)
            for begun in unfinished([stack]).values():
                go_back(stack, begun, quiet)
            assert runs_the_old(server), (moment, second)
            assert settled(server), (moment, second)


def test_an_unfinished_upgrade_stands_in_the_way_of_the_next_and_says_whose_it_is() -> None:
    server = next(left for _, left in dead(begin) if left.told)
    with pytest.raises(Refused, match="never finished") as raised:
        begin(FakeStack(server))
    assert "grafana, node (stopping)" in raised.value.why
    assert "--put-back" in raised.value.fix


def test_half_put_back_data_is_not_gone_on_with() -> None:
    begun = Begun((Change("grafana", Running("graf:1", "g1"), "graf:2"),), Phase.RETURNING, "ops@desk", "2026-11-23")
    with pytest.raises(Refused, match="half of it"):
        go_on(FakeStack(Server()), begun, quiet)

"""What every server keeps to, the fake as well as a real one."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from deploy import figures, public
from deploy.model import HealthSpec, Probe
from ops.errors import Failed, Locked, TidegateError
from tests.contract.conftest import Subject


def running(subject: Subject) -> dict[str, bool]:
    return {one.process: one.running for one in subject.state().containers}


def soon(subject: Subject, expected: dict[str, bool]) -> bool:
    """Look until it is as expected: an engine's list is behind a stop that it has answered by some milliseconds."""
    wait = threading.Event()
    return any(running(subject) == expected or wait.wait(0.05) for _ in range(100))


def test_containers_are_started_stopped_started_again_and_removed_and_every_look_says_so(subject: Subject) -> None:
    release, specs = subject.draft()
    subject.server.start_new(specs)
    web = next(one for one in subject.state().containers if one.process == "web")
    assert (web.name, web.release, web.slot, web.version, web.address) == (
        specs[0].name,
        release.id,
        "blue",
        release.version,
        release.address,
    )
    assert soon(subject, {"web": True, "worker": True})
    names = tuple(spec.name for spec in specs)
    subject.server.stop(names, 1)
    assert soon(subject, {"web": False, "worker": False})
    assert release.address in subject.state().taken
    subject.server.stop(names, 1)
    subject.server.start(names)
    subject.server.start(names)
    assert soon(subject, {"web": True, "worker": True})
    subject.server.remove(names)
    assert subject.state().containers == ()
    subject.server.remove(names)
    subject.server.stop(names, 1)


def test_what_cannot_be_started_fails_with_words(subject: Subject) -> None:
    _, specs = subject.draft()
    subject.server.start_new(specs[:1])
    with pytest.raises(Failed):
        subject.server.start_new(specs[:1])
    with pytest.raises(Failed):
        subject.server.start(["blog_web_nowhere"])
    assert running(subject) == {"web": True}


def test_two_containers_cannot_have_one_address(subject: Subject) -> None:
    _, first = subject.draft()
    _, second = subject.draft()
    subject.server.start_new(first[:1])
    with pytest.raises(Failed):
        subject.server.start_new(second[:1])


def test_a_healthy_release_is_found_healthy(subject: Subject) -> None:
    release, specs = subject.draft()
    subject.server.start_new(specs)
    subject.server.wait_healthy(subject.health(release), 20)


def test_a_crash_is_told_at_once_with_its_last_words(subject: Subject) -> None:
    release, specs = subject.draft(BEHAVIOUR="crash")
    subject.server.start_new(specs)
    began = time.monotonic()
    with pytest.raises(Failed, match=r"did not become healthy \(died\)") as caught:
        subject.server.wait_healthy(subject.health(release), 20)
    assert time.monotonic() - began < 10
    assert "crashed at start" in caught.value.why


def test_a_worker_that_ends_is_told_too(subject: Subject) -> None:
    release, specs = subject.draft(BEHAVIOUR="worker_fail")
    subject.server.start_new(specs)
    with pytest.raises(Failed, match=r"blog_worker_\w+ did not become healthy \(died\)"):
        subject.server.wait_healthy(subject.health(release), 20)


@pytest.mark.parametrize("behaviour", ["unhealthy", "wrong_port"])
def test_what_never_becomes_healthy_is_given_up(subject: Subject, behaviour: str) -> None:
    release, specs = subject.draft(BEHAVIOUR=behaviour)
    subject.server.start_new(specs)
    with pytest.raises(Failed, match=r"did not become healthy \(timeout\)"):
        subject.server.wait_healthy(subject.health(release), 1)


def test_waiting_for_what_is_not_there_fails(subject: Subject) -> None:
    with pytest.raises(TidegateError):
        subject.server.wait_healthy([HealthSpec("blog_web_nowhere", "127.0.0.1", 1, "/", "x", 1)], 2)


def test_a_migration_leaves_no_container_whether_it_succeeds_or_fails(subject: Subject) -> None:
    subject.server.run_once(subject.migration(), 20)
    assert subject.state().containers == ()
    with pytest.raises(Failed, match="failed with exit code 1") as caught:
        subject.server.run_once(subject.migration(BEHAVIOUR="migrate_fail"), 20)
    assert "duplicate column" in caught.value.why
    assert subject.state().containers == ()


def test_a_switch_is_seen_by_users_and_by_the_next_look_and_can_be_undone(subject: Subject) -> None:
    assert subject.users_get() is None
    one = subject.serve()
    assert subject.users_get() == one.id
    edge = subject.state().edge
    assert (edge.present, edge.running, edge.release, edge.generation, edge.answering) == (
        True,
        True,
        one.id,
        one.generation,
        one.generation,
    )
    assert edge.content == one.edge_file
    assert edge.claims == dict.fromkeys(subject.env.domains, "blog")
    two = subject.serve()
    assert subject.users_get() == two.id
    subject.server.stage_edge(one.edge_file)
    assert subject.users_get() == two.id
    assert subject.server.switch_edge(one.generation) < 15
    assert subject.users_get() == one.id
    assert subject.server.wait_old_workers(15)
    subject.server.switch_edge(None)
    assert subject.users_get() is None
    assert (subject.state().edge.content, subject.state().edge.answering) == (None, None)


def test_a_refused_nginx_file_leaves_the_live_one_alone(subject: Subject) -> None:
    live = subject.serve()
    bad, _ = subject.draft(extra="no_such_directive on;")
    with pytest.raises(Failed, match="nginx refuses") as caught:
        subject.server.stage_edge(bad.edge_file)
    assert "no_such_directive" in caught.value.why
    assert subject.state().edge.content == live.edge_file
    subject.server.unstage_edge()
    subject.server.unstage_edge()
    assert subject.users_get() == live.id
    with pytest.raises(TidegateError):
        subject.server.switch_edge("nothing-is-staged")
    assert subject.users_get() == live.id


def test_starting_an_edge_that_runs_is_fine(subject: Subject) -> None:
    live = subject.serve()
    subject.server.start_edge()
    assert subject.users_get() == live.id


def test_a_manifest_is_staged_then_complete_and_may_be_completed_and_removed_again(subject: Subject) -> None:
    release, _ = subject.draft()
    subject.server.write_release(release)
    assert subject.state().releases == (release,)
    for _ in range(2):
        subject.server.complete_release(release.id)
        (found,) = subject.state().releases
        assert found.complete
    for _ in range(2):
        subject.server.remove_release(release.id)
        assert subject.state().releases == ()
    with pytest.raises(TidegateError):  # noqa: PT012  # now, or at the next call that waits
        subject.server.complete_release(release.id)
        subject.server.journal({"event": "step"})


def test_a_bill_of_materials_comes_and_goes_with_its_release_and_is_taken_for_no_manifest(subject: Subject) -> None:
    release, _ = subject.draft()
    subject.server.write_release(release, '{"bomFormat": "CycloneDX"}')
    assert (subject.state().releases, subject.state().problems) == ((release,), ())
    assert subject.bill(release.id) == '{"bomFormat": "CycloneDX"}'
    subject.server.complete_release(release.id)
    assert [one.complete for one in subject.state().releases] == [True]
    subject.server.remove_release(release.id)
    assert (subject.state().releases, subject.bill(release.id)) == ((), "")


def test_the_journal_keeps_the_order_in_which_it_was_told(subject: Subject) -> None:
    before = len(subject.journal())
    for number in range(20):
        subject.server.journal({"event": "step", "number": number}, wait=number % 3 == 0)
    subject.server.journal({"event": "step", "number": 20})
    assert [record["number"] for record in subject.journal()[before:]] == list(range(21))


def test_an_operation_without_an_end_is_seen_by_the_next_look(subject: Subject) -> None:
    head = {"operation": "contract", "kind": "deploy", "release": "r0", "by": "ann"}
    subject.server.journal({"event": "begin", **head})
    assert "deploy of r0 by ann" in str(subject.state().unfinished)
    subject.server.journal({"event": "end", **head})
    assert subject.state().unfinished is None


def test_the_second_to_ask_for_the_lock_is_told_who_has_it_until_the_first_one_leaves(subject: Subject) -> None:
    holder = {"what": "a deploy", "who": "ann@desk", "since": "noon"}
    first, second, third = subject.connect(), subject.connect(), subject.connect()
    try:
        first.lock(holder)
        first.observe()
        second.lock(holder)
        with pytest.raises(Locked, match="a deploy"):
            second.observe()
        subject.close(first)
        third.lock(holder)
        third.observe()
    finally:
        for server in (first, second, third):
            subject.close(server)


def test_an_image_is_there_once_received_and_goes_when_nothing_needs_it(subject: Subject) -> None:
    name = subject.image.name
    assert subject.state().images == {name: subject.image.content}
    _, specs = subject.draft()
    subject.server.start_new(specs[:1])
    subject.server.remove_image(name)
    assert subject.state().images == {name: subject.image.content}
    subject.server.remove([specs[0].name])
    for _ in range(2):
        subject.server.remove_image(name)
        assert subject.state().images == {}


def test_the_public_address_proves_the_release(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(public, "PATIENCE", 1.0)
    release = subject.serve()
    assert subject.server.verify_public(release).startswith("http://")
    with pytest.raises(Failed):
        subject.server.verify_public(replace(release, generation="another-generation"))


def test_the_prober_reports_only_once_it_was_started(subject: Subject) -> None:
    subject.serve()
    assert subject.server.probe_report(stop=False) is None
    subject.server.probe(Probe(subject.env.domains[0], "/health", https=False), 0.02)
    subject.server.probe_mark()
    report = subject.server.probe_report(stop=True, minimum=5)
    assert report is not None
    assert (report.failures, report.requests_after_mark >= 5) == (0, True)


def test_a_wait_ends_when_cancelled_and_the_next_one_waits_again(subject: Subject) -> None:
    release, specs = subject.draft(BEHAVIOUR="slow")
    subject.server.start_new(specs)
    if hasattr(subject.server, "machine"):
        subject.server.machine.hangs = True
    timer = threading.Timer(0.3, subject.server.cancel)
    timer.start()
    with pytest.raises(Failed, match="cancelled"):
        subject.server.wait_healthy(subject.health(release), 20)
    timer.join()
    if hasattr(subject.server, "machine"):
        subject.server.machine.hangs = False
    subject.server.resume()
    subject.server.wait_healthy(subject.health(release), 20)


def test_data_is_seen_and_a_backup_of_it_is_known_from_then_on(subject: Subject) -> None:
    data = subject.state().data
    assert data is not None
    assert [(one.name, one.present, one.error) for one in data.sources] == [("files", True, "")]
    id = f"20260101T000000Z-{len(data.backups):06x}"
    subject.server.back_up(id, "r1", first=False)
    data = subject.state().data
    assert data is not None
    assert data.moved_since(data.backups[id]) == ()
    assert not data.restoring


@pytest.mark.parametrize("wait", [True, False])
def test_what_a_deploy_tells_of_itself_is_in_the_file_that_monitoring_reads(subject: Subject, wait: bool) -> None:
    labels, about, now = {"app": "blog", "environment": "test"}, {"release": "r9"}, datetime.now(UTC)
    subject.server.tell_figures(figures.begun(labels, about, now), wait=wait)
    subject.state()  # what was asked for before is done by then
    assert 'tidegate_deploy_in_progress{app="blog",environment="test"} 1' in subject.figures()
    subject.server.tell_figures(figures.ended(labels, about, now, now, ok=True), wait=wait)
    subject.state()
    assert 'tidegate_deploy_in_progress{app="blog",environment="test"} 0' in subject.figures()
    assert 'tidegate_deploy_info{app="blog",environment="test",release="r9"} 1' in subject.figures()

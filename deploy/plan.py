"""What a deploy or a rollback will do, decided from what was observed. Pure: no I/O, no clock.

A plan is a list of phases; every server finishes a phase before any server begins the next, which is the barrier that
keeps one server from switching while another is not healthy. On a failure the phases before the first `final` one are
undone backwards; what fails in a final phase is left for the next deploy to clean up, since the new release is proven.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from deploy import parts
from deploy.model import HostState, Intent, Probe, Release
from deploy.refusals import damages, data_notes, data_refusals, edge_refusals, notes, refusals, unsafe, volume_refusals
from deploy.steps import Step, WriteManifest
from ops.config import Environment
from ops.errors import Refused

FINAL = ("drain", "prune")


@dataclass(frozen=True)
class Phase:
    """Steps that all servers finish before any begins the next phase."""

    name: str
    steps: Mapping[str, tuple[Step, ...]]

    @property
    def final(self) -> bool:
        """Tell whether the outcome is decided before this phase begins."""
        return self.name in FINAL


@dataclass(frozen=True)
class Plan:
    """What will be done, why, and what speaks against it."""

    kind: str
    environment: str
    release: str
    version: str
    previous: Mapping[str, str | None]
    phases: tuple[Phase, ...] = ()
    refusals: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    unchanged: bool = False
    slots: Mapping[str, str] = field(default_factory=dict)
    probes: Mapping[str, Probe] = field(default_factory=dict)
    backup: str = ""
    skips_backup: bool = False


def plan_deploy(env: Environment, intent: Intent, states: tuple[HostState, ...]) -> Plan:
    """Plan the deploy of an image to every server of an environment."""
    release = next_release_id(intent.image.version, states)
    plan = Plan("deploy", env.name, release, intent.image.version, _serving(states), notes=notes(env, intent, states))
    if against := _unsafe(env, states):
        return replace(plan, refusals=against)
    if not intent.force and all(parts.serves_already(intent, state) for state in states):
        return _clean_up_only(env, plan, states, f"{plan.version} serves already", " (--force restarts it)")
    against = tuple(
        line for state in states for line in (*refusals(env, state, intent.image), *data_refusals(env, intent, state))
    )
    if against := (*volume_refusals(env, intent.image), *against):
        return replace(plan, refusals=against)
    try:
        drafts = {state.host: parts.draft(env, intent, state, release) for state in states}
    except Refused as refused:
        return replace(plan, refusals=(str(refused),))
    backup = next((one.backup for one in drafts.values() if one.backup), "")
    saves = env.app.backup is not None and any(state.data is None or state.data.sources for state in states)
    skips = intent.skip_backup and saves
    plan = replace(plan, slots=_slots(drafts), probes=_probes(states, drafts), backup=backup, skips_backup=skips)
    return replace(_unprobed(plan), phases=_deploy_phases(env, intent, states, drafts))


def _clean_up_only(env: Environment, plan: Plan, states: tuple[HostState, ...], hint: str, more: str = "") -> Plan:
    """Plan for a release that serves already: a restart would cost the release that a rollback goes to."""
    left = _without_empty((Phase("prepare", {state.host: parts.clean_up(env.app, state) for state in states}),))
    only = ", only what a killed command left is cleaned up" if left else ", nothing to do"
    return replace(
        plan, unchanged=not left, phases=left, release=states[0].serving or "", notes=(*plan.notes, hint + only + more)
    )


def _deploy_phases(
    env: Environment, intent: Intent, states: tuple[HostState, ...], drafts: Mapping[str, Release]
) -> tuple[Phase, ...]:
    app = env.app
    make: dict[str, Callable[[HostState, Release], tuple[Step, ...]]] = {
        "prepare": lambda state, new: parts.clean_up(app, state),
        "ship": lambda state, new: parts.ship(intent.image, state),
        "backup": parts.back_up,
        "migrate": lambda state, new: parts.migrate(app, intent, new, first=state is states[0]),
        "start": lambda state, new: parts.start_new(app, intent, new),
        "healthy": lambda state, new: (*parts.wait_healthy(app, new), WriteManifest(new, intent.bill)),
        "switch": lambda state, new: parts.switch(app, state, new),
        "verify": lambda state, new: parts.verify(app, state, new, parts.PROBES),
        "drain": lambda state, new: parts.drain(app, state, new.id),
        "prune": lambda state, new: parts.prune(app, state, new),
    }
    return _phases(make, states, drafts)


def plan_rollback(env: Environment, states: tuple[HostState, ...], to: str | None) -> Plan:
    """Plan the return to a kept release: its own containers, with their image, configuration and environment."""
    plan = Plan("rollback", env.name, to or "", "", _serving(states), notes=damages(states))
    if against := _unsafe(env, states):
        return replace(plan, refusals=against)
    candidates = rollback_candidates(states)
    target = next((one for one in candidates if to in (one.id, one.version)), None) if to else _before(states, candidates)
    if target is None:
        return replace(plan, refusals=(_no_target(env, states, to),))
    told = tuple(line for state in states for line in data_notes(env, state, target))
    plan = replace(plan, release=target.id, version=target.version, notes=plan.notes + told)
    if all(state.serving == target.id == _answering(state) and _runs(state, target) for state in states):
        return _clean_up_only(env, plan, states, f"{target.id} serves already")
    if against := tuple(line for state in states for line in edge_refusals(state)):
        return replace(plan, refusals=against)
    there = {state.host: state.release(target.id) or target for state in states}
    plan = replace(plan, slots=_slots(there), probes=_probes(states, there))
    return replace(_unprobed(plan), phases=_rollback_phases(env, states, there))


def _rollback_phases(env: Environment, states: tuple[HostState, ...], there: Mapping[str, Release]) -> tuple[Phase, ...]:
    app = env.app
    make: dict[str, Callable[[HostState, Release], tuple[Step, ...]]] = {
        "prepare": lambda state, kept: parts.clean_up(app, state, keep=kept.id),
        "start": lambda state, kept: parts.start_kept(app, state, kept),
        "healthy": lambda state, kept: parts.wait_healthy(env.app, kept),
        "switch": lambda state, kept: parts.switch(app, state, kept),
        "verify": lambda state, kept: parts.verify(app, state, kept, 0),
        "drain": lambda state, kept: parts.drain(app, state, kept.id),
    }
    return _phases(make, states, there)


def _no_target(env: Environment, states: tuple[HostState, ...], to: str | None) -> str:
    """Say why no release can be rolled back to: what is kept where, and how a release that only some keep comes to all."""
    kept = {state.host: rollback_candidates((state,)) for state in states}
    every = ", ".join(one.id for one in rollback_candidates(states)) or "none"
    found = [f"no kept release {to or 'older than the one that serves'}; kept on every server: {every}"]
    if len(states) > 1:
        found += [f"{host} keeps {', '.join(one.id for one in own) or 'none'}" for host, own in kept.items()]
    somewhere = tuple(one for own in kept.values() for one in own)
    wanted = next((one for one in somewhere if to in (one.id, one.version)), None) if to else _before(states, somewhere)
    if wanted and (lacking := [host for host, own in kept.items() if wanted.id not in {one.id for one in own}]):
        command = f"inv deploy -e {env.name} --version {wanted.version}"
        how = command if env.app.image else f"check out {wanted.version} and run inv deploy -e {env.name}"
        found.append(f"{', '.join(lacking)} lacks {wanted.id}: deploy that version again: {how}")
    return "; ".join(found)


def plan_prune(env: Environment, states: tuple[HostState, ...]) -> Plan:
    """Plan the removal of what is beyond `keep_releases` and of what killed deploys left."""
    plan = Plan("prune", env.name, "", "", _serving(states), notes=damages(states))
    if against := _unsafe(env, states):
        return replace(plan, refusals=against)
    phases = (
        Phase("prepare", {state.host: parts.clean_up(env.app, state) for state in states}),
        Phase("prune", {state.host: parts.prune(env.app, state, None) for state in states}),
    )
    return replace(plan, phases=_without_empty(phases))


def _unsafe(env: Environment, states: tuple[HostState, ...]) -> tuple[str, ...]:
    return tuple(line for state in states for line in unsafe(env, state))


def next_release_id(version: str, states: tuple[HostState, ...]) -> str:
    """Return the version, numbered past every release of that version that is known anywhere, and past other people's container names."""
    known = {one.release for state in states for one in state.containers}
    known |= {one.id for state in states for one in state.releases}
    known |= {state.serving for state in states if state.serving}
    known |= {name.split("_", 2)[2] for state in states for name in state.foreign if name.count("_") > 1}  # app_process_release
    numbers = [int(found[1] or 1) for id in known if (found := re.fullmatch(rf"{re.escape(version)}(?:\.(\d{{1,9}}))?", id))]
    return f"{version}.{max(numbers) + 1}" if numbers else version


def rollback_candidates(states: tuple[HostState, ...]) -> tuple[Release, ...]:
    """Return the releases that every server keeps whole, newest first."""
    found = [one for one in states[0].releases if all(_kept_whole(state, one.id) for state in states)]
    return tuple(sorted(found, key=lambda one: one.created, reverse=True))


def _kept_whole(state: HostState, id: str) -> bool:
    release = state.release(id)
    there = {one.process for one in state.of_release(id)}
    return release is not None and release.complete and there >= set(release.processes)


def _before(states: tuple[HostState, ...], candidates: tuple[Release, ...]) -> Release | None:
    """Return what served before the newest serving release, else the newest kept release older than it."""
    serving = [release for state in states if (release := state.release(state.serving))]
    newest = max(serving, key=lambda one: one.created, default=None)
    older = [one for one in candidates if newest is None or one.created < newest.created]
    return next((one for one in older if newest and one.id == newest.previous), older[0] if older else None)


def _answering(state: HostState) -> str | None:
    return next((one.id for one in state.releases if one.generation == state.edge.answering), None)


def _runs(state: HostState, release: Release) -> bool:
    return {one.process for one in state.of_release(release.id) if one.running} >= set(release.processes)


def _slots(releases: Mapping[str, Release]) -> dict[str, str]:
    return {host: release.slot for host, release in releases.items()}


def _unprobed(plan: Plan) -> Plan:
    """Say for which servers the prober has nothing to ask."""
    hosts = [host for host, serving in plan.previous.items() if serving and host not in plan.probes]
    told = tuple(f"{host}: the old and the new release share no address, so nothing is probed" for host in hosts)
    return replace(plan, notes=plan.notes + told)


def _probes(states: tuple[HostState, ...], releases: Mapping[str, Release]) -> dict[str, Probe]:
    return {state.host: probe for state in states if (probe := parts.probe(state, releases[state.host]))}


def _serving(states: tuple[HostState, ...]) -> dict[str, str | None]:
    return {state.host: state.serving for state in states}


def _phases(
    make: Mapping[str, Callable[[HostState, Release], tuple[Step, ...]]],
    states: tuple[HostState, ...],
    releases: Mapping[str, Release],
) -> tuple[Phase, ...]:
    return _without_empty(
        tuple(
            Phase(name, {state.host: make_steps(state, releases[state.host]) for state in states})
            for name, make_steps in make.items()
        )
    )


def _without_empty(phases: tuple[Phase, ...]) -> tuple[Phase, ...]:
    return tuple(phase for phase in phases if any(phase.steps.values()))

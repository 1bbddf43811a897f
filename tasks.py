"""Everything people type; `inv --list` is the menu. Heavy imports wait until a task needs them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoke import Collection, Context, Exit, task

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from deploy.model import HostState
    from deploy.plan import Plan
    from deploy.release import Options, Summary
    from ops.config import Environment, Project
    from ops.console import Console

CONFIG = Path(os.environ.get("TIDEGATE_CONFIG", "ops.toml"))

ENV = {"env": "the environment in ops.toml (default: sandbox)"}
JSON = {"json": "print one JSON document for scripts"}
YES = {"yes": "do not ask"}
DRY = {"dry-run": "show the plan with its reasons and change nothing"}
VERBOSE = {"verbose": "show every step and the build's output"}


@contextmanager
def _console(*, json: bool = False, yes: bool = False) -> Iterator[Console]:
    """Hand out the console, and turn errors into their exit codes; the only place that does."""
    from ops.console import Console
    from ops.errors import TidegateError

    console = Console(as_json=json, assume_yes=yes)
    try:
        yield console
    except TidegateError as error:
        console.document({"error": error.what, "where": error.where, "cause": error.why, "next": error.fix, "exit_code": error.exit_code})
        raise Exit(f"✗ {error}", error.exit_code) from None
    except KeyboardInterrupt:
        raise Exit("interrupted", 1) from None


def _project() -> Project:
    from ops.config import load

    return load(CONFIG.absolute(), os.environ)


def _environment(name: str) -> Environment:
    return _project().environment(name)


@task(help={**ENV, **JSON, **YES, **DRY, **VERBOSE, "version": "what to deploy (default: YYYYMMDD-shortsha of the commit)",
            "force": "deploy even if this very version serves already"})  # fmt: skip
def deploy(
    c: Context, env: str = "sandbox", version: str = "", dry_run: bool = False, force: bool = False, yes: bool = False,
    json: bool = False, verbose: bool = False,
) -> None:  # fmt: skip
    """Build, ship and switch to a version without dropping a request."""
    from deploy import release

    options = release.Options(version=version or None, dry_run=dry_run, force=force)
    _release(release.deploy, env, options, json=json, yes=yes, verbose=verbose)


@task(help={**ENV, **JSON, **YES, **DRY, **VERBOSE, "to": "the kept release or version (default: the newest kept before the serving one)"})
def rollback(
    c: Context, env: str = "sandbox", to: str = "", dry_run: bool = False, yes: bool = False, json: bool = False, verbose: bool = False
) -> None:
    """Return to a kept release: its own image, configuration and environment."""
    from deploy import release

    options = release.Options(to=to or None, dry_run=dry_run)
    _release(release.rollback, env, options, json=json, yes=yes, verbose=verbose)


def _release(what: Callable[..., Summary], env: str, options: Options, *, json: bool, yes: bool, verbose: bool) -> None:
    with _console(json=json, yes=yes) as console:
        from deploy import show

        environment = _environment(env)
        plans: list[Plan] = []

        def confirm(plan: Plan, states: Sequence[HostState]) -> bool:
            plans.append(plan)
            show.plan(console, plan, states)
            if options.dry_run:
                show.plan_steps(console, plan)
            if plan.refusals or plan.unchanged or options.dry_run or not environment.approve:
                return True
            return console.confirm(f"{plan.kind} {plan.release} to {environment.name}?")

        done = what(environment, options, os.environ, show.Printer(console, verbose=verbose), confirm)
        show.summary(console, done)
        console.document(show.plan_document(plans[0]) if options.dry_run else show.summary_document(done))
        if done.result == "declined":
            raise Exit("declined, nothing was changed", 3)


namespace = Collection()
_deploy = Collection("deploy")
_deploy.add_task(deploy, name="run", default=True)
_deploy.add_task(rollback)
namespace.add_collection(_deploy)

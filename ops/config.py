"""The configuration: `load` reads ops.toml into a `Project`, whose environments say where the app runs and how."""

from ops.config_load import DEFAULT_ENVIRONMENT, Project, load
from ops.config_models import (
    App,
    Drain,
    Edge,
    Environment,
    Health,
    HostAddress,
    Migrate,
    Notifications,
    Prober,
    Process,
    SecretSource,
    Tls,
)
from ops.config_problems import ConfigProblems, Problem

__all__ = [
    "DEFAULT_ENVIRONMENT",
    "App",
    "ConfigProblems",
    "Drain",
    "Edge",
    "Environment",
    "Health",
    "HostAddress",
    "Migrate",
    "Notifications",
    "Prober",
    "Problem",
    "Process",
    "Project",
    "SecretSource",
    "Tls",
    "load",
]

"""The configuration: `load` reads ops.toml into a `Project`, whose environments say where the app runs and how."""

from ops.config_backup import Backup, BackupSource, Keep, Keeping, Offsite
from ops.config_hosts import HostAddress
from ops.config_load import DEFAULT_ENVIRONMENT, Project, load
from ops.config_models import (
    App,
    Drain,
    Edge,
    Environment,
    Health,
    Migrate,
    Notifications,
    Prober,
    Process,
    SecretSource,
    Services,
    Tls,
)
from ops.config_monitoring import (
    AppMetrics,
    Email,
    Monitoring,
    Objectives,
    ObjectStorage,
    PublicGrafana,
    RemoteWrite,
    Slack,
    Webhook,
)
from ops.config_problems import ConfigProblems, Problem

__all__ = [
    "DEFAULT_ENVIRONMENT",
    "App",
    "AppMetrics",
    "Backup",
    "BackupSource",
    "ConfigProblems",
    "Drain",
    "Edge",
    "Email",
    "Environment",
    "Health",
    "HostAddress",
    "Keep",
    "Keeping",
    "Migrate",
    "Monitoring",
    "Notifications",
    "ObjectStorage",
    "Objectives",
    "Offsite",
    "Prober",
    "Problem",
    "Process",
    "Project",
    "PublicGrafana",
    "RemoteWrite",
    "SecretSource",
    "Services",
    "Slack",
    "Tls",
    "Webhook",
    "load",
]

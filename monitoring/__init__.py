"""Watching: the stack, its rules and dashboards, alerts that arrive, logs."""

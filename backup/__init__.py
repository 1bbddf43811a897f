"""Backups: what `inv` does about them here; what happens on a server is in `backup.agent`."""

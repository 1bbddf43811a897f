"""Releases: observe, plan, show, apply."""

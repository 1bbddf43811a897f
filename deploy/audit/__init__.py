"""Known vulnerabilities in lock files."""

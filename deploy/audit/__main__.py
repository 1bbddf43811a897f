"""The command line that `nox -s audit` runs: `python -m deploy.audit --help`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from invoke import Exit

from deploy.audit.auditing import audit_typed
from deploy.audit.pip_audit import SERVICE
from ops.menu import opened


def main(arguments: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deploy.audit", description="Look for known vulnerabilities in lock files.")
    parser.add_argument("targets", nargs="*", type=Path, metavar="FOLDER|LOCKFILE", help="what to audit (default: this folder)")
    parser.add_argument("--offline", metavar="DIR", help="ask no service but this folder of OSV or RustSec records")
    parser.add_argument("--osv-url", default=SERVICE, metavar="URL", help=f"the OSV service to ask (default: {SERVICE})")
    parser.add_argument("--json", action="store_true", help="print one JSON document for scripts")
    options = parser.parse_args(arguments)
    try:
        with opened(json=options.json) as console:
            return audit_typed(console, options.targets or [Path()], options.offline, options.osv_url)
    except Exit as error:
        print(error.message, file=sys.stderr)
        return int(error.code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Start the program."""

from __future__ import annotations

import sys

from backup.agent.cli import main

sys.exit(main())

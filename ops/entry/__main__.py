"""`python -m tidegate`."""

from . import main

main()

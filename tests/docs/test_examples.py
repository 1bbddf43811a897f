"""Examples in docstrings do what they show."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest

from tests.docs.documents import ROOT, name
from tests.docs.languages import FILES


@pytest.mark.parametrize("path", [path for path in FILES if "\n    >>> " in path.read_text()], ids=name)
def test_examples_in_docstrings_do_what_they_show(path: Path) -> None:
    module = import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    done = doctest.testmod(module)
    assert done.attempted
    assert not done.failed

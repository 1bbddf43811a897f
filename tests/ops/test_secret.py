from __future__ import annotations

import copy
import json
import logging
import pickle
import traceback

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ops.secret import MASK, Secret

VALUE = "hunter2-Zq9"


def test_every_rendering_is_a_mask() -> None:
    secret = Secret(VALUE)
    shown = f"{secret} {secret!r} {secret!s:>20} {secret:^12} {[secret]} {(secret,)}" + str({"key": secret})
    assert VALUE not in shown
    assert MASK in shown
    assert secret.reveal() == VALUE


@settings(max_examples=30)
@given(st.text(min_size=1))
def test_no_value_shows_itself(value: str) -> None:
    assert str(Secret(value)) == MASK
    assert repr(Secret(value)) == f"Secret({MASK!r})"


def test_a_secret_is_neither_pickled_nor_copied_nor_made_json() -> None:
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy, json.dumps):
        with pytest.raises(TypeError) as caught:
            attempt(Secret(VALUE))
        assert VALUE not in str(caught.value)


def test_a_secret_has_no_dictionary_to_look_into() -> None:
    assert not hasattr(Secret(VALUE), "__dict__")


def test_a_secret_does_not_join_with_text_by_accident() -> None:
    with pytest.raises(TypeError):
        "".join([Secret(VALUE)])  # type: ignore[list-item]
    with pytest.raises(TypeError):
        "x" + Secret(VALUE)  # type: ignore[operator]


def test_logs_and_tracebacks_show_the_mask(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        logging.getLogger("t").info("with %s", Secret(VALUE))
    try:
        raise RuntimeError(Secret(VALUE))
    except RuntimeError as error:
        shown = "".join(traceback.format_exception(error))
    assert VALUE not in caplog.text + shown


def test_equal_values_are_equal_secrets_but_not_equal_text() -> None:
    assert Secret(VALUE) == Secret(VALUE)
    assert hash(Secret(VALUE)) == hash(Secret(VALUE))
    assert Secret(VALUE) != Secret("other")
    assert Secret(VALUE) != VALUE

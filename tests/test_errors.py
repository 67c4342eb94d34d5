"""Errors: one line, a hint, an exit code, and one tree."""

import inspect

import pytest

from ehrsim import errors

CLASSES = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, Exception)]


def test_every_error_is_one_tree_drawn_in_the_module():
    assert all(issubclass(error, errors.EhrsimError) for error in CLASSES)
    assert all(error.__name__ in errors.__doc__ for error in CLASSES)
    assert issubclass(errors.FormatError, errors.InputError)


@pytest.mark.parametrize("error", [error for error in CLASSES if error is not errors.MissingExtraError])
def test_messages_are_one_line_with_their_hint(error):
    raised = error("file.csv:\n  column `a`\n", hint="mend it")
    assert str(raised) == "file.csv: column `a` (hint: mend it)"
    assert (raised.message, raised.hint) == ("file.csv: column `a`", "mend it")
    assert str(error("plain")) == "plain"


def test_gates_fail_with_one_and_everything_else_with_two():
    assert {error: error.exit_code for error in CLASSES if error.exit_code != 2} == {errors.GateError: 1}


def test_a_missing_extra_says_how_to_get_it():
    assert "pip install 'ehrsim[duckdb]'" in str(errors.MissingExtraError("reading DuckDB files", "duckdb"))

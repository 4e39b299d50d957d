"""The checker of wording finds what it should, and nothing in plain text."""

import pytest

from tests.style.voice import check_python, check_text, without_code


@pytest.mark.parametrize(
    "text",
    [
        "What is converted is said.",
        "files that a model is asked about",
        "this method tells no classes apart",
        "its runs are no mere seeds",
        "no such key; type data.path=FILE",
        "the optimiser is initialised",
        "colours of the labelled neighbours",
    ],
)
def test_banned_wording_is_found(text: str) -> None:
    assert list(check_text(text))


def test_plain_wording_passes() -> None:
    text = "Read a store; raise ValueError if its type or shape is unexpected. Pass data.path=FILE."
    assert not list(check_text(text))


def test_code_is_not_prose() -> None:
    assert not list(check_text(without_code("use `optim.optimiser=x`\n```\ncolour\n```\n")))


def test_findings_have_lines() -> None:
    source = '"""Plain."""\n\n\ndef f():\n    """Whether it is so."""\n    # a colour\n'
    assert [finding.line for finding in check_python(source)] == [5, 6]

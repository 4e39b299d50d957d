"""A few damaged files of every format; `make fuzz` reads thousands."""

from collections import Counter
from pathlib import Path

import pytest

from tests.fuzz.readers import outcomes

pytestmark = pytest.mark.slow

READ = ["pyskl", "kinetics", "ntu_skeleton", "ctrgcn", "stgcn_json", "poses", "store"]
USED = ["predict", "evaluate", "checkpoint", "config", "report"]


def test_damaged_files_are_read_or_refused_in_one_line(toy_run: Path) -> None:
    results = list(outcomes(range(126), 0, toy_run, READ))
    assert len(results) == 126
    assert [result for result in results if not result.is_expected] == []
    # the test would be void if all files were refused, or none damaged
    counts = Counter(result.result for result in results)
    assert min(counts["read"], counts["in part"], counts["refused"]) > 6, counts


def test_damaged_files_of_commands_are_used_or_refused_in_one_line(toy_run: Path) -> None:
    """Files and run folders of unknown origin cause no traceback and execute no code."""
    results = list(outcomes(range(60), 0, toy_run, USED))
    assert len(results) == 60
    assert [result for result in results if not result.is_expected] == []
    counts = Counter(result.result for result in results)
    assert min(counts["read"], counts["refused"]) > 8, counts

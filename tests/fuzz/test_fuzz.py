"""Some damaged files of every kind; `make fuzz` reads thousands."""

from collections import Counter
from pathlib import Path

from tests.fuzz.readers import outcomes

READ = ["pyskl", "kinetics", "ntu_skeleton", "ctrgcn", "stgcn_json", "poses", "store"]
USED = ["predict", "evaluate", "checkpoint", "config", "report"]


def test_damaged_files_are_read_or_refused_in_one_line(toy_run: Path) -> None:
    found = list(outcomes(range(126), 0, toy_run, READ))
    assert len(found) == 126
    assert [one for one in found if not one.good] == []
    # it proves nothing if all files are refused at the first look, or if none is damaged
    results = Counter(one.result for one in found)
    assert min(results["read"], results["in part"], results["refused"]) > 6, results


def test_damaged_files_of_commands_are_used_or_refused_in_one_line(toy_run: Path) -> None:
    """The kind: a file or run folder of a stranger ends in a traceback, or runs code."""
    found = list(outcomes(range(60), 0, toy_run, USED))
    assert len(found) == 60
    assert [one for one in found if not one.good] == []
    results = Counter(one.result for one in found)
    assert min(results["read"], results["refused"]) > 8, results

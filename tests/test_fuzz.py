"""Some damaged files of every kind; `make fuzz` reads thousands."""

from collections import Counter

from tests.fuzz.readers import outcomes


def test_damaged_files_are_read_or_refused_in_one_line():
    found = list(outcomes(range(252), seed=0))
    assert len(found) == 252
    assert [one for one in found if not one.good] == []
    # it proves nothing if all files are refused at the first look, or if none is damaged
    results = Counter(one.result for one in found)
    assert min(results["read"], results["in part"], results["refused"]) > 12, results

"""Runs read for a comparison."""

import pytest

from maskclr_pl.reporting.run_groups import CORRUPTED, Model
from maskclr_pl.runs.results import read_table, write_table
from tests.helpers.run_folders import run_folder


def test_mean_over_corruptions_excludes_attacks_and_sensors(tmp_path):
    """What an attack or another sensor does stands for itself."""
    run = run_folder(tmp_path / "a", 0.8)
    rows = read_table(run / "robustness.csv")
    for name, top1 in (("frame_drop", 60.0), ("adversarial", 1.0), ("second_store", 2.0)):
        rows += [{**rows[1], "corruption": name}]
        rows += [{**rows[1], "corruption": name, "level": "1.0", "top1": str(top1)}]
    write_table(run / "robustness.csv", rows)
    model = Model("a", (run,))
    assert model.values["adversarial"] == [1.0]
    assert model.values[CORRUPTED] == pytest.approx([(60 + (80 + 40) / 2) / 2])
    # clip by clip only joint_occlusion is known
    assert set(model.scores) == {"clean", "joint_occlusion"}

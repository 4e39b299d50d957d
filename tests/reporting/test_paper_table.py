import re

import pytest
import yaml

from maskclr_pl.reporting.paper_table import PaperTable, load_published
from maskclr_pl.runs.describe import TableRow, read_run, table_row
from maskclr_pl.runs.seeds import group_seeds, training_settings
from maskclr_pl.types import InputError
from tests.helpers.run_configs import AGPM, config, kind, run


def test_published_rows_are_valid():
    rows = load_published()["rows"]
    assert len({(one["method"], one["backbone"], one["protocol"]) for one in rows}) == len(rows)
    assert len(load_published()["benchmarks"]) == 5
    known = {"clip", "augment", "optim", "method", "monitor_split", "trainer", "data", "backbone"}
    for one in rows:
        assert one["source"]
        assert set(one["figures"]) <= set(load_published()["benchmarks"])
        assert all(20 < figure < 100 for figure in one["figures"].values())
        assert {key.split(".")[0] for key in one.get("settings", {})} <= known | {"loss", "masking"}


def test_published_accuracies_of_the_paper():
    """Figures that MaskCLR's table is known by, typed in a second time."""
    table = PaperTable([])
    for backbone, figures in (
        ("STTFormer", [90.1, 95.4, 79.0, 80.5, None]),
        ("Transformer", [93.5, 97.5, 90.5, 91.9, None]),
        ("DSTformer", [93.9, 97.3, 87.4, 89.5, 44.7]),
    ):
        row = TableRow("MaskCLR", backbone, "full")
        assert [table.published_top1(row, name) for name in table.benchmarks] == figures


def test_table_without_runs_has_only_published_rows():
    table = PaperTable([])
    assert {line["figures"] for line in table.display_rows()} == {"paper"}
    assert "ours" not in table.markdown().split("Top-1 on the test split")[0]
    assert all(one["runs"] == 0 and one["ours_mean"] == "" for one in table.csv_rows())


def lines_of(table, method):
    return {one["figures"]: one for one in table.display_rows() if one["method"] == method}


def test_seeds_are_averaged(tmp_path):
    pre = run(tmp_path / "pre", method___target_=kind("MaskedAutoencoder"), method__target="motion")
    for seed, top1 in enumerate((80.0, 82.0, 87.0)):
        folder = tmp_path / f"seed{seed}"
        run(folder, top1, seed=seed, data__seed=seed, init_from=str(pre), output_dir=str(folder))
    table = PaperTable([read_run(tmp_path / f"seed{seed}") for seed in range(3)])
    result = [
        one for one in table.display_rows() if one["method"] == "MAMP" and one["protocol"] == "full"
    ]
    paper, ours = result
    assert (paper["figures"], paper["NTU60-XSub"]) == ("paper", "93.1")
    assert ours["figures"] == "ours"
    assert ours["NTU60-XSub"] == "83.0 ± 3.6 (3)"  # sqrt((9 + 1 + 16) / 2)
    assert ours["NTU60-XView"] == ours["K400"] == ours["source"] == ""
    [record] = [one for one in table.csv_rows() if one["runs"]]
    assert (record["published"], record["ours_mean"]) == (93.1, "83.0000")


def test_differences_from_published_settings_are_listed(tmp_path):
    changes = {"backbone__weights": "f.pth", "trainer__max_epochs": 3, "data__batch_size": 12}
    accumulate = {"trainer__accumulate_grad_batches": 2}
    one = read_run(run(tmp_path / "a", clips=100, **changes, **accumulate))
    [result] = differences([one])
    assert "100 test clips (published 16,487)" in result
    assert "trainer.max_epochs 3 (published 100)" in result
    assert "data.batch_size 24 (published 48)" in result
    assert "monitor_split val (published test)" in result
    assert not any(text.startswith(("optim.lr", "clip.frames")) for text in result)
    assert "trainer.max_epochs 3 (published 100)" in PaperTable([one]).markdown()


def differences(runs):
    """Of each cell of the runs, which are all of one row and benchmark."""
    table = PaperTable(runs)
    [[(row, benchmark), cells]] = table.cells.items()
    return [table.differences(row, benchmark, cell) for cell in cells]


def ours(runs):
    """Line -> figure."""
    lines = [one for one in PaperTable(runs).display_rows() if one["figures"].startswith("ours")]
    return {one["figures"]: one["NTU60-XSub"] for one in lines}


def test_only_seeds_are_averaged(tmp_path):
    """Kind: runs that differ in more than the seed, averaged as if they were seeds."""
    settings = {"short": {"trainer__max_epochs": 30}, "long": {"trainer__max_epochs": 60}}
    runs = [
        read_run(run(tmp_path / f"{name}{seed}", top1 + seed, seed=seed, data__seed=seed, **values))
        for (name, values), top1 in zip(settings.items(), (50.0, 70.0), strict=True)
        for seed in (0, 2)
    ]
    assert ours(runs) == {
        "ours: trainer.max_epochs=30": "51.0 ± 1.4 (2)",
        "ours: trainer.max_epochs=60": "71.0 ± 1.4 (2)",
    }
    records = [one for one in PaperTable(runs).csv_rows() if one["runs"]]
    assert [one["settings"] for one in records] == [
        "trainer.max_epochs=30",
        "trainer.max_epochs=60",
    ]


def test_repeated_seeds_do_not_count(tmp_path):
    """Kind: one seed counted several times, which makes the spread too small."""
    runs = [read_run(run(tmp_path / n, top1, seed=seed)) for n, top1, seed in REPEATED]
    assert ours(runs) == {"ours": "51.0 ± 1.4 (2)"}
    [notes] = differences(runs)
    assert f"{tmp_path / 'again'} skipped: seed 0 is repeated" in notes


REPEATED = (("first", 50.0, 0), ("again", 90.0, 0), ("other", 52.0, 1))


def test_irrelevant_settings_do_not_separate_seeds(tmp_path):
    same = {"data__num_workers": 8, "output_dir": "there", "checkpointing": True, "logger": {}}
    runs = [read_run(run(tmp_path / "a")), read_run(run(tmp_path / "b", seed=1, **same))]
    assert list(ours(runs)) == ["ours"]


@pytest.mark.parametrize(
    ("seeds", "data_seeds", "expected"),
    [
        ((0, 1, 2), (0, 1, 2), [[0, 1, 2]]),  # the data follow the run
        ((0, 1, 2), (0, 0, 0), [[0, 1, 2]]),  # data.seed=0 for all
        ((0, 1, 2), (0, 1, 7), [[0, 1], [2]]),
        ((0, 0, 0), (0, 1, 2), [[0], [1], [2]]),
    ],
)
def test_data_seeds_separate_groups(seeds, data_seeds, expected):
    """Kind: other held-out clips, averaged as if only the training had been another."""
    both = zip(seeds, data_seeds, strict=True)
    settings = [training_settings(config(seed=s, data__seed=d)) for s, d in both]
    assert group_seeds(seeds, settings) == expected


def test_ensembles_have_their_own_row(tmp_path):
    streams = ("joint", "bone", "joint_motion")
    members = [run(tmp_path / name, clip__stream=name) for name in streams]
    both = run(tmp_path / "both")
    parts = {"ensemble": {"runs": [str(one) for one in members], "weights": [0.6, 0.6, 0.4]}}
    (both / "config.yaml").write_text(yaml.safe_dump(parts))
    assert read_run(both).row == TableRow("3s-supervised", "Transformer", "full")
    two = {"ensemble": {"runs": [str(members[0])] * 2, "weights": [1, 1]}}
    (both / "config.yaml").write_text(yaml.safe_dump(two))
    assert read_run(both).row.method == "2x-supervised"
    nested = {"ensemble": {"runs": [str(both)], "weights": [1]}}
    (members[1] / "config.yaml").write_text(yaml.safe_dump(nested))
    with pytest.raises(InputError, match="an ensemble of ensembles"):
        read_run(members[1])
    (both / "config.yaml").write_text(yaml.safe_dump(parts))
    (members[1] / "config.yaml").write_text(yaml.safe_dump(config(clip__stream="bone")))
    (members[0] / "config.yaml").write_text(yaml.safe_dump(config(masking=AGPM)))
    with pytest.raises(InputError, match="an ensemble of different methods"):
        read_run(both)


def test_initial_weights_separate_groups(tmp_path):
    for name, epochs in (("short", 1), ("long", 3)):
        run(tmp_path / name, trainer__max_epochs=epochs)
    a, b = (
        read_run(run(tmp_path / f"from_{name}", init_from=str(tmp_path / name), seed=seed))
        for seed, name in enumerate(("short", "long"))
    )
    assert list(ours([a, b])) == [
        "ours: init_from.trainer.max_epochs=1",
        "ours: init_from.trainer.max_epochs=3",
    ]
    guided = config(masking=AGPM, init_from=str(tmp_path / "short"))
    assert table_row(guided).method.endswith(" after supervised")


def test_markdown_is_aligned(tmp_path):
    one = read_run(run(tmp_path / "a", data__test_split="test", clip__classes=9))
    text = PaperTable([one]).markdown()
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(row) for row in rows}) == 1
    assert len({row.count("|") for row in rows}) == 1
    assert re.search(r"\| ours +\|.*\| 50\.0 \(1\) +\|", text)

"""The report: what it says, that it needs nothing else, that it runs nothing."""

import json
import re
from functools import partial

import pytest

from maskclr_pl.runs.results import read_table
from tests.helpers.browser import Outline
from tests.helpers.commands import in_process, refused
from tests.helpers.run_folders import CLASSES, run_folder

EVIL = "<script>alert(1)</script>"


@pytest.fixture
def report(tmp_path, capsys):
    """Runs the command; returns the folder that it wrote."""

    def run(*args, output="report"):
        in_process("report", *args, f"output_dir={output}", cwd=tmp_path, capsys=capsys)
        return tmp_path / output

    return run


def label_option(*labels):
    return f"labels=[{','.join(labels)}]"


def two_models(folder, **options):
    """Two seeds each; the second model is right where the first is and more."""
    for label, right in (("twin", 0.5), ("ours", 0.9)):
        for seed in (0, 1):
            run_folder(folder / f"{label}_{seed}", right + seed / 60, seed=seed, **options)
    return "runs=[twin_0,twin_1,ours_0,ours_1]", label_option("twin", "twin", "ours", "ours")


def outline(folder):
    return Outline((folder / "report.html").read_text())


def check_page(folder):
    """Complete in itself, and with what a screen reader needs."""
    result = outline(folder)
    ids = [attrs["id"] for _, attrs in result.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for tag, attrs in result.tags:
        assert tag != "script"
        assert not any(name.startswith("on") for name in attrs)
        for name in ("src", "href"):
            target = attrs.get(name) or "data:"
            assert target.startswith("data:") or target.removeprefix("#") in ids, target
    assert all(attrs["alt"] for attrs in result.all("img"))
    assert len(result.all("table")) == len(result.all("caption"))
    assert all(attrs.get("scope") in ("col", "row") for attrs in result.all("th"))
    assert result.all("html")[0]["lang"] == "en"
    assert result.all("meta")[1]["name"] == "viewport"
    assert "url(" not in (folder / "report.html").read_text().split("</style>")[0]
    return result


def headings(result):
    return [attrs["id"] for attrs in result.all("h2") if "id" in attrs]


def test_page_of_two_models(tmp_path, report):
    folder = report(*two_models(tmp_path))
    result = check_page(folder)
    assert headings(result) == [
        *("results", "configuration", "training", "robustness", "classes", "cost"),
        "environment-and-data",
    ]
    # 30 and 31, 54 and 55 of 60 clips: a standard deviation of 100 / 60 / sqrt(2)
    assert "50.8 ± 1.2" in result.words
    assert "90.8 ± 1.2" in result.words
    assert "ours minus twin clean +40.00" in result.words
    assert "No settings differ except seeds and folders." in result.words
    assert "python -m maskclr_pl.train output_dir=ours_0" in result.words
    assert "Before you read" not in result.words
    assert (folder / "report.html").stat().st_size < 2_000_000


def test_tables_are_written_in_three_formats(tmp_path, report):
    folder = report(*two_models(tmp_path))
    names = {path.stem for path in folder.glob("*.csv")}
    assert names == {"comparison", "differences", "corruptions", "classes", "cost"}
    for name in names:
        rows = read_table(folder / f"{name}.csv")
        marked = (folder / f"{name}.md").read_text().splitlines()
        assert len([line for line in marked if line.startswith("|")]) == 2 + len(rows)
        tex = (folder / f"{name}.tex").read_text()
        assert tex.count(r" \\") == 1 + len(rows)
    [twin, ours] = read_table(folder / "comparison.csv")
    assert (twin["run"], twin["seeds"], twin["clean"]) == ("twin", "2", "50.8 ± 1.2")
    assert ours["joint_occlusion"].startswith("68.")  # mean of 90.8 and half of it, 46 of 60
    pairs = read_table(folder / "differences.csv")
    assert [pair["measure"] for pair in pairs] == ["clean", "joint_occlusion"]
    assert {pair["supported"] for pair in pairs} == {"yes"}


def bold(folder):
    """What is marked as best in each form of the comparison."""
    html = re.findall(r"<strong>(.*?)</strong>", (folder / "report.html").read_text())
    markdown = re.findall(r"\*\*(.*?)\*\*", (folder / "comparison.md").read_text())
    tex = re.findall(r"\\textbf\{(.*?)\}", (folder / "comparison.tex").read_text())
    return html, markdown, [text.replace(r"$\pm$", "±") for text in tex]


def test_best_is_bold_only_if_significant(tmp_path, report):
    html, markdown, tex = bold(report(*two_models(tmp_path)))
    assert markdown == tex
    assert "90.8 ± 1.2" in markdown
    assert set(markdown) <= set(html)
    assert not any("50.8" in text for text in html)
    run_folder(tmp_path / "near", 0.5)
    run_folder(tmp_path / "by", 0.52)
    assert bold(report("runs=[near,by]", output="close")) == ([], [], [])
    assert bold(report("runs=[near]", output="alone")) == ([], [], [])


def test_best_of_three_must_beat_both(tmp_path, report):
    for name, right in (("a", 0.3), ("b", 0.88), ("c", 0.9)):
        run_folder(tmp_path / name, right)
    assert bold(report("runs=[a,b,c]", output="near")) == ([], [], [])
    run_folder(tmp_path / "d", 0.6)
    _, markdown, _ = bold(report("runs=[a,d,c]", output="clear"))
    assert "90.0" in markdown


def test_names_are_escaped(tmp_path, report):
    """Classes, labels, settings and names of files that would be HTML."""
    names = {"classes": [EVIL, "\"quoted'", "&amp;"], "note": "</pre><img src=x onerror=alert(1)>"}
    for run in ("a", "b"):
        folder = run_folder(tmp_path / run, 0.7 if run == "a" else 0.5, **names)
        (folder / "figures").mkdir()
        (folder / "figures" / "<i>&.png").write_bytes(b"no picture")
    folder = report("runs=[a,b]", label_option("'<b>bold'", "'x&y'"))
    result = check_page(folder)
    assert not result.all("b")
    assert not result.all("i")
    for text in (EVIL, "\"quoted'", "&amp;", "<b>bold", "x&y", "</pre><img src=x", "<i>&"):
        assert text in result.words, text
    assert EVIL in (folder / "classes.csv").read_text()
    assert r"\textless{}script" in (folder / "classes.tex").read_text()


def test_one_run(tmp_path, report):
    run_folder(tmp_path / "only", evaluated=False)
    result = check_page(report("runs=[only]"))
    assert "robustness" not in headings(result)
    assert "only: one seed." in result.words
    assert "minus" not in result.words
    assert "confused with" in result.words


def test_one_seed_is_called_one(tmp_path, report):
    for name in ("a", "b"):
        run_folder(tmp_path / name, 0.7)
    assert "a, b: one seed." in outline(report("runs=[a,b]")).words


@pytest.mark.parametrize(
    "file",
    [
        *("predictions.npz", "metrics.csv", "robustness.csv", "robustness_summary.csv"),
        *("robustness_clips.npz", "environment.json"),
    ],
)
def test_runs_without_a_file(tmp_path, report, file):
    for name, right in (("a", 0.7), ("b", 0.5)):
        run_folder(tmp_path / name, right)
    (tmp_path / "a" / file).unlink()
    result = check_page(report("runs=[a,b]"))
    assert "70.0" in result.words
    said = {
        "predictions.npz": "a: not all runs have a predictions.npz",
        "robustness_clips.npz": "a: no robustness_clips.npz",
        "environment.json": "a: no environment.json",
    }
    assert said.get(file, "") in result.words


def test_runs_with_minimal_files(tmp_path, report):
    for name in ("a", "b"):
        run = run_folder(tmp_path / name, evaluated=False)
        for file in ("predictions.npz", "metrics.csv", "environment.json"):
            (run / file).unlink()
    assert headings(check_page(report("runs=[a,b]"))) == ["results", "configuration", "cost"]


def test_pretraining_runs_have_no_results(tmp_path, report):
    """No labels, no test: curves, cost, settings."""
    run = run_folder(tmp_path / "pre", evaluated=False)
    (run / "predictions.npz").unlink()
    (run / "metrics.json").write_text(json.dumps({"train/loss": 0.5, "train/seconds": 9.0}))
    run_folder(tmp_path / "tested", 0.7)
    result = check_page(report("runs=[pre,tested]"))
    assert "Not compared with each other: pre | tested." in result.words
    assert "pre, not tested" in result.words
    assert "results" not in headings(check_page(report("runs=[pre]", output="alone")))


@pytest.mark.parametrize("other", [{"names": "other"}, {"poses": "bb"}, {"clips": 57}])
def test_different_test_clips_are_not_compared(tmp_path, report, other):
    run_folder(tmp_path / "a", 0.5)
    run_folder(tmp_path / "b", 0.9, **other)
    folder = report("runs=[a,b]")
    result = check_page(folder)
    assert "Not compared with each other: a | b." in result.words
    assert "minus" not in result.words
    assert not (folder / "differences.csv").exists()
    assert (folder / "robustness_2.png").is_file()


def test_seeds_with_different_test_clips_are_not_compared(tmp_path, report):
    run_folder(tmp_path / "a0", 0.5)
    run_folder(tmp_path / "a1", 0.5, names="other", seed=1)
    run_folder(tmp_path / "b", 0.9)
    result = check_page(report("runs=[a0,a1,b]", label_option("a", "a", "b")))
    assert "Not compared with each other: a | b." in result.words
    assert "a: not all runs have a predictions.npz of the same clips" in result.words


def test_caveats(tmp_path, report):
    toy = {"_target_": "maskclr_pl.sources.synthetic.SyntheticSource"}
    run_folder(tmp_path / "toy", source=toy)
    run_folder(tmp_path / "chosen", monitor_split="test")
    run_folder(tmp_path / "again", monitor_split="test", loss={"weights": {"ce": 0.5}})
    words = outline(report("runs=[toy,chosen,again]", label_option("toy", "seeds", "seeds"))).words
    assert "toy: synthetic data" in words
    assert "seeds: the checkpoint was selected on the test split (monitor_split=test)" in words
    assert "seeds: seeds 0, 0 are not all different" in words
    assert "seeds: runs under this label differ in more than the seed: loss.weights.ce" in words


def test_inconsistent_clean_accuracy_is_a_caveat(tmp_path, report):
    run = run_folder(tmp_path / "a", 0.7)
    (run / "robustness.csv").write_text(
        (run / "robustness.csv").read_text().replace("70.0", "40.0")
    )
    words = outline(report("runs=[a]")).words
    assert "robustness.csv of a has a clean top-1 of 40.0, metrics.json of 70.0" in words


def test_differing_settings_are_listed(tmp_path, report):
    run_folder(tmp_path / "a", loss={"weights": {"ce": 1.0}})
    run_folder(tmp_path / "b", loss={"weights": {"ce": 1.0, "class": 0.1}}, seed=3)
    rows = read_table(report("runs=[a,b]") / "settings.csv")
    assert [list(row.values()) for row in rows] == [["loss.weights.class", "—", "0.1"]]


def test_classes_are_sorted_by_difference(tmp_path, report):
    folder = report(*two_models(tmp_path))
    rows = read_table(folder / "classes.csv")
    changes = [abs(float(row["ours minus twin"])) for row in rows]
    assert changes == sorted(changes, reverse=True)
    assert {row["class"] for row in rows} == set(CLASSES)
    assert sum(int(row["clips"]) for row in rows) == 60


def test_damaged_files_are_refused(tmp_path, capsys):
    run = run_folder(tmp_path / "a")
    fail = partial(refused, "report", "runs=[a]", cwd=tmp_path, capsys=capsys)
    (run / "robustness_clips.npz").write_bytes(b"PK")
    assert "robustness_clips.npz: not an .npz file" in fail()
    (run / "predictions.npz").write_bytes(b"PK")
    assert "predictions.npz: not an .npz file" in fail()
    assert not (tmp_path / "runs").exists()


def test_page_size_is_limited(tmp_path, report):
    run = run_folder(tmp_path / "a")
    (run / "figures").mkdir()
    for name in "pqr":
        (run / "figures" / f"{name}.png").write_bytes(b"1" * 2_900_000)
    folder = report("runs=[a]")
    assert "1 more in a/figures, too large for one page" in outline(folder).words
    assert (folder / "report.html").stat().st_size < 10_000_000

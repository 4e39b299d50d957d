"""Method, protocol and benchmark of a run."""

import pytest

from maskclr_pl.runs.describe import TableRow, benchmark_name, published_clips, read_run, table_row
from maskclr_pl.runs.read import find_runs
from maskclr_pl.types import InputError
from tests.helpers.run_configs import AGPM, CONTRAST, config, kind, method_of, run


def test_method_of_a_run(tmp_path):
    assert method_of() == "supervised"
    assert method_of(masking=AGPM, loss__terms=CONTRAST) == "MaskCLR"
    random = {"strategy": {"_target_": "maskclr_pl.masking.RandomMasking"}}
    assert method_of(masking=random, loss__terms={"ce": {}}) == "RandomMasking, loss ce"
    assert method_of(backbone__weights="checkpoint-399.pth") == "MAMP"
    assert method_of(clip__stream="bone") == "supervised (bone)"
    assert method_of(method__target="motion", method___target_=kind("MaskedAutoencoder")) == "MAMP"
    assert method_of(init_from="gone/run") == "from run"
    assert method_of(method___target_=kind("LinearProbe")) == "random weights"
    assert method_of(method___target_=kind("AimCLR")) == "AimCLR"
    assert method_of(method___target_=kind("Lift")) == "MotionBERT"
    mae = {"method__target": "coordinates", "method___target_": kind("MaskedAutoencoder")}
    started = run(tmp_path / "pre", **mae)
    for start in (started, started / "checkpoints" / "best.ckpt"):
        assert method_of(init_from=str(start)) == "SkeletonMAE"
    middle = run(tmp_path / "middle", init_from=str(started))
    result = method_of(init_from=str(middle), method___target_=kind("KNN"))
    assert result == "SkeletonMAE"


def test_protocols():
    assert table_row(config()) == TableRow("supervised", "Transformer", "full")
    for name, protocol in (("LinearProbe", "linear"), ("KNN", "kNN"), ("OneShot", "one-shot")):
        assert table_row(config(method___target_=kind(name))).protocol == protocol
    assert table_row(config(data__label_fraction=0.01)).protocol == "1 % of the labels"
    assert (
        table_row(config(data__label_fraction="a/labeled.txt")).protocol == "labels of labeled.txt"
    )
    part = table_row(config(data__label_fraction=0.1, method___target_=kind("LinearProbe")))
    assert part.protocol == "linear, 10 % of the labels"


@pytest.mark.parametrize(
    ("split", "classes", "path", "name"),
    [
        ("xsub_val", 60, "x.h5", "NTU60-XSub"),
        ("xview_val", 60, "x.h5", "NTU60-XView"),
        ("xset_val", 120, "x.h5", "NTU120-XSet"),
        ("ntu60_xsub_val", 120, "x.h5", "NTU60-XSub"),
        ("val", 400, "x.h5", "K400"),
        ("test", 15, "data/penn_action.h5", "penn_action"),
        ("xsub_val", 7, "data/own.h5", "own xsub_val"),
        ("val", 15, "data/own.h5", "own val"),
    ],
)
def test_benchmarks(split, classes, path, name):
    settings = {"data__test_split": split, "clip__classes": classes, "data__path": path}
    assert benchmark_name(config(**settings)) == name


def test_sizes_of_the_benchmarks():
    assert published_clips("NTU60-XSub") == 16_487
    assert published_clips("NTU120-XSet") == 59_477
    assert published_clips("K400") is None


def test_masking_that_never_started_is_not_maskclr():
    """Kind: a run named after a method that it never came to."""
    masking = {**AGPM, "start_epoch": 300}
    named = {"masking": masking, "loss__terms": CONTRAST}
    assert method_of(**named, trainer__max_epochs=4) == "supervised"
    assert method_of(**named, trainer__max_epochs=300) == "supervised"
    assert method_of(**named, trainer__max_epochs=301) == "MaskCLR"
    assert method_of(masking={**AGPM, "start_epoch": 0.5}, loss__terms=CONTRAST) == "MaskCLR"


def test_effective_batch_size_and_learning_rate(tmp_path):
    one = read_run(run(tmp_path / "a", data__balanced={"classes": 16, "samples": 2}))
    assert one.value("data.batch_size") == 32
    assert one.value("optim.backbone_lr") == 0.0003
    assert one.value("no.such.key") is None


def test_invalid_run_folders_are_refused(tmp_path):
    one = run(tmp_path / "runs" / "a")
    assert find_runs(tmp_path) == find_runs(one) == [one]
    (one / "metrics.json").write_text('{"train/loss": 1.0}')
    with pytest.raises(InputError, match=r"metrics\.json has no test/top1"):
        read_run(one)
    (one / "metrics.json").write_text('{"test/top1": 1.0}')
    (one / "config.yaml").write_text("- 1")
    with pytest.raises(InputError, match=r"config\.yaml: expected a mapping"):
        read_run(one)
    with pytest.raises(InputError, match="not a run folder, and no run folder inside"):
        find_runs(tmp_path / "empty")

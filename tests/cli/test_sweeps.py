"""Sweeps and searches: jobs that fail or are stopped, W&B agents, Optuna, jobs on a cluster."""

import json
import os
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import hydra
import pytest
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

import maskclr_pl
from maskclr_pl.cli import command, error_line, log, run_folder
from maskclr_pl.cli.entry_point import _guarded
from maskclr_pl.config.paths import config_dir
from maskclr_pl.types import InputError
from tests.helpers.commands import in_process
from tests.helpers.wandb_tools import SHORT, offline_runs

pytestmark = [pytest.mark.usefixtures("offline"), pytest.mark.slow]


def test_the_search_of_wandb_agents_composes():
    search = yaml.safe_load(Path(maskclr_pl.__file__).with_name("wandb_sweep.yaml").read_text())
    assert search["command"][1:4] == ["python", "-m", "maskclr_pl.train"]
    assert search["command"][-1] == "${args_no_hyphens}"
    parameters = search["parameters"]
    values = {
        key: node.get("values") or [node.get("value", node.get("min")), node.get("max")]
        for key, node in parameters.items()
    }
    for i in range(max(map(len, values.values()))):
        chosen = {key: (some * 9)[i] or some[0] for key, some in values.items()}
        # as the agent builds them
        overrides = [*search["command"][4:-1], *(f"{key}={v}" for key, v in chosen.items())]
        GlobalHydra.instance().clear()
        with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
            cfg = hydra.compose("train", overrides)
        assert cfg.objective == search["metric"]["name"]
        for key, value in chosen.items():
            if key != "experiment":
                assert OmegaConf.select(cfg, key) == value


@pytest.mark.recipes
def test_the_run_of_an_agent_has_the_id_that_it_was_given(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("WANDB_RUN_ID", "given123")
    options = ["logger=wandb", "debug=fast", "output_dir=run", *SHORT]
    in_process("train", *options, cwd=tmp_path, capsys=capsys)
    [written] = offline_runs(tmp_path / "run")
    assert written.run.run_id == "given123"
    assert written.run.display_name == "run"
    assert written.artifacts == {}  # not asked for


def test_the_plugins_search_over_what_there_is():
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        cfg = hydra.compose("train", ["hparams_search=optuna"], return_hydra_config=True)
        slurm = hydra.compose("train", ["launcher=slurm"], return_hydra_config=True)
    assert cfg.hydra.sweeper._target_.startswith("hydra_plugins.hydra_optuna_sweeper")
    for key in cfg.hydra.sweeper.params:
        assert isinstance(OmegaConf.select(cfg, key), float), key
    assert slurm.hydra.launcher.gpus_per_node == slurm.hydra.launcher.tasks_per_node == 1


@pytest.mark.parametrize(("plugin", "extra"), [("optuna", "sweep"), ("submitit_slurm", "slurm")])
def test_a_plugin_that_is_not_installed(plugin, extra):
    error = HydraException(
        f"Could not find 'hydra/x/{plugin}'\n\nAvailable options in 'hydra/x':\n\tbasic"
    )
    assert f"pip install 'maskclr_pl[{extra}]'" in error_line(error, "train")


def test_a_job_in_a_process_of_its_own_says_what_it_does(capsys, monkeypatch):
    # a launcher starts the job there, past what the command set up
    monkeypatch.setattr(log, "handlers", [])
    _guarded(lambda cfg: log.info("clip %d", cfg.number), OmegaConf.create({"number": 7}), "train")
    assert capsys.readouterr().out == "clip 7\n"


# --- every job ends by itself ---------------------------------------------------------------------


class Sweeps:
    """Calls of `train -m` whose jobs write what a training writes, without the training.

    `ends` maps the seed of a job to the exception that it ends with; `ran` has the jobs that ran.
    """

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]):
        self.folder, self.capsys = folder, capsys
        self.ends: dict[int, BaseException] = {}
        self.ran: list[tuple[int, str | None]] = []
        self.out = self.err = ""

    def job(self, cfg: DictConfig) -> float:
        folder = Path(cfg.resume) if cfg.resume else run_folder(cfg.output_dir, "train")
        self.ran.append((cfg.seed, cfg.resume))
        if isinstance(self.ends.get(cfg.seed), InputError):
            raise self.ends[cfg.seed]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text("seed: 0")
        if cfg.seed in self.ends:
            raise self.ends[cfg.seed]
        top1 = 50.0 + 2 * cfg.seed + (20 if "sample" in cfg.loss.terms else 0)
        (folder / "metrics.json").write_text(json.dumps({"test/top1": top1, "test/top5": 90.0}))
        return top1 + 1

    def __call__(self, *words: str, main: Callable[[DictConfig], float] | None = None) -> int:
        sys.argv = ["train", "-m", *words]
        GlobalHydra.instance().clear()
        self.ran.clear()
        code = 0
        try:
            command("train")(main or self.job)()
        except SystemExit as end:
            code = int(end.code or 0)
        self.out, self.err = self.capsys.readouterr()
        return code


@pytest.fixture
def sweeps(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [])
    return Sweeps(tmp_path, capsys)


def test_one_bad_job_does_not_end_a_sweep(sweeps):
    """Kind of mistake: the jobs after a bad one never ran, and the exit code was all there was."""
    sweeps.ends = {1: InputError("no such thing"), 2: RuntimeError("a bug")}
    assert sweeps("seed=0,1,2,3", "loss=ce,foo") == 1
    assert [seed for seed, _ in sweeps.ran] == [0, 1, 2, 3]  # loss=foo does not compose
    assert "sweep      2 of 8 jobs finished" in sweeps.out
    assert "Traceback" in sweeps.err  # of the bug, and of nothing else
    ends = [line for line in sweeps.err.splitlines() if line.startswith("failed ")]
    assert len(ends) == 6
    assert "failed     loss_ce__seed_1: no such thing" in ends
    assert "failed     loss_ce__seed_2: RuntimeError: a bug" in ends
    assert sum("no loss named 'foo'" in line for line in ends) == 4
    assert sweeps.err.splitlines()[-1].startswith("error: 6 of 8 jobs failed")
    # the same command runs what is missing, and takes up what was begun
    sweeps.ends = {}
    assert sweeps("loss=ce,foo", "seed=0,1,2,3") == 2
    assert [seed for seed, _ in sweeps.ran] == [1, 2]
    assert [resume is not None for _, resume in sweeps.ran] == [False, True]
    assert "note: finished before: 2 jobs skipped" in sweeps.out
    # a seed more is one job more
    assert sweeps("loss=ce", "seed=0,1,4") == 0


@pytest.mark.recipes
def test_a_sweep_that_is_stopped_goes_on(sweeps):
    """Kind of mistake: after Ctrl-C a sweep began anew, in another folder."""
    sweeps.ends = {1: KeyboardInterrupt()}
    assert sweeps("seed=0,1,2", "optim.lr=0.01") == 130
    assert [seed for seed, _ in sweeps.ran] == [0, 1]
    assert "continue   python -m maskclr_pl.train -m seed=0,1,2 optim.lr=0.01" in sweeps.out
    sweeps.ends = {}
    assert sweeps("seed=0,1,2", "optim.lr=0.01") == 0
    [folder] = (sweeps.folder / "runs/sweep").iterdir()
    own = str((folder / "seed_1").relative_to(sweeps.folder))
    assert sweeps.ran == [(1, own), (2, None)]
    # other settings are another sweep; a job whose folder is gone runs again
    assert sweeps("seed=0", "optim.lr=0.02") == 0
    assert sweeps.ran == [(0, None)]
    (folder / "seed_2" / "metrics.json").unlink()
    (folder / "seed_2" / "config.yaml").unlink()
    assert sweeps("seed=0,1,2", "optim.lr=0.01") == 0
    assert sweeps.ran == [(2, None)]


def test_the_table_at_the_end(sweeps):
    """Kind of mistake: a sweep ended with the lines of its last job. Values by hand."""
    assert sweeps("loss=ce,maskclr", "seed=0,1,2") == 0
    table = [re.split(r"  +", line) for line in sweeps.out.splitlines()]
    assert ["setting", "runs", "test/top1", "val/top1"] in table
    # 50, 52, 54: mean 52, standard deviation 2; the objective is 1 more
    assert ["loss=ce", "3", "52.00 ± 2.00", "53.00 ± 2.00"] in table
    assert ["loss=maskclr", "3", "72.00 ± 2.00", "73.00 ± 2.00"] in table
    *_, line, folder = sweeps.out.splitlines()
    assert Path(folder).is_dir()
    words = shlex.split(line.removeprefix("next "))
    assert words[:3] == ["python", "-m", "maskclr_pl.report"]
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        cfg = hydra.compose("report", words[3:])
    assert list(cfg.labels) == ["loss=ce"] * 3 + ["loss=maskclr"] * 3
    assert all((Path(run) / "metrics.json").is_file() for run in cfg.runs)


@pytest.mark.recipes
def test_two_jobs_never_share_a_folder(sweeps):
    """Kind of mistake: the second job was refused, or one stood for the other."""
    assert sweeps("seed=0,1", "output_dir=X") == 2
    assert "error: output_dir=X: all jobs of the sweep would write into this folder" in sweeps.err
    assert not sweeps.ran
    assert sweeps("seed=0,1", "output_dir=own/${seed}") == 0
    assert sorted(path.name for path in (sweeps.folder / "own").iterdir()) == ["0", "1"]
    # a folder of the user, with other settings
    assert sweeps("seed=0,1", "loss=ce", "hydra.sweep.dir=mine") == 0
    assert sweeps("seed=0,1", "loss=maskclr", "hydra.sweep.dir=mine") == 2
    assert "mine has seed_0 with other overrides" in sweeps.err
    assert sweeps("seed=0,1", "loss=maskclr", "hydra.sweep.dir=mine") == 2
    assert not sweeps.ran
    assert sweeps("seed=0,1", "loss=ce", "hydra.sweep.dir=mine") == 0
    assert not sweeps.ran
    # the run of another command is neither skipped nor continued, however often it is asked for
    (sweeps.folder / "other").mkdir()
    (sweeps.folder / "other" / "config.yaml").write_text("seed: 7")
    sweeps.ends = {7: InputError("other holds a run already")}
    assert sweeps("seed=7", "output_dir=other") == 2
    assert sweeps("seed=7", "output_dir=other") == 2
    assert sweeps.ran == [(7, None)]


@pytest.mark.recipes
def test_a_job_that_another_process_trains_is_left_alone(sweeps):
    """Kind of mistake: the same command in two terminals wrote into the same folders."""
    sweeps.ends = {0: KeyboardInterrupt()}
    assert sweeps("seed=0,1") == 130
    [path] = sweeps.folder.glob("runs/sweep/*/jobs/seed_0.json")
    job = json.loads(path.read_text())
    path.write_text(json.dumps({**job, "status": "running", "process": os.getppid()}))
    sweeps.ends = {}
    assert sweeps("seed=0,1") == 2
    assert f"process {os.getppid()} is training it" in sweeps.err
    assert [seed for seed, _ in sweeps.ran] == [1]


def test_a_search_goes_on_from_its_database(sweeps):
    """Kind: a search that is lost with its process, and that no other process can share."""
    optuna, sql = pytest.importorskip("optuna"), pytest.importorskip("sqlalchemy")
    if int(sql.__version__.split(".")[0]) >= 2:
        pytest.skip(
            "Optuna 2 does not find its tables again with SQLAlchemy 2 (see pyproject.toml)"
        )
    tried = []

    def trial(cfg: DictConfig) -> float:
        tried.append(cfg.optim.lr)
        return float(cfg.optim.lr)

    words = ("hparams_search=optuna", "hydra.sweeper.n_trials=2")
    storage = f"sqlite:///{sweeps.folder}/study.db"
    for seed in (0, 1):  # of another process, or of the same on another day
        key = f"hydra.sweeper.sampler.seed={seed}"
        code = sweeps(*words, f"hydra.sweeper.storage={storage}", key, main=trial)
        assert code == 0, sweeps.err
    study = optuna.load_study(study_name="maskclr_pl", storage=storage)
    assert [one.value for one in study.trials] == tried
    assert len(set(tried)) == 4


def test_a_failed_trial_does_not_end_a_search(sweeps):
    """Kind of mistake: the first trial that failed ended the search."""
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    tried = []

    def trial(cfg: DictConfig) -> float:
        tried.append(cfg.optim.lr)
        if len(tried) == 2:
            raise InputError("diverged")
        return float(cfg.optim.lr)

    code = sweeps("hparams_search=optuna", "hydra.sweeper.n_trials=4", main=trial)
    assert len(set(tried)) == 4
    assert code == 2
    assert "3 of 4 jobs finished" in sweeps.out
    [results] = sweeps.folder.glob("runs/sweep/*/optimization_results.yaml")
    best = yaml.safe_load(results.read_text())
    assert best["best_value"] == pytest.approx(max(t for i, t in enumerate(tried) if i != 1))

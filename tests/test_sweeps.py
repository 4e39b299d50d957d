"""Searches: the agents of W&B, Optuna, and jobs on a cluster."""

from pathlib import Path

import hydra
import pytest
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf

import maskclr_pl
from maskclr_pl.cli import log, one_line
from maskclr_pl.cli.command import _guarded
from maskclr_pl.config import config_dir
from tests.commands import in_process
from tests.wandb_tools import SHORT, offline_runs

pytestmark = pytest.mark.usefixtures("offline")


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
    assert f"pip install 'maskclr_pl[{extra}]'" in one_line(error, "train")


def test_a_job_in_a_process_of_its_own_says_what_it_does(capsys, monkeypatch):
    # a launcher starts the job there, past what the command set up
    monkeypatch.setattr(log, "handlers", [])
    _guarded(lambda cfg: log.info("clip %d", cfg.number), OmegaConf.create({"number": 7}), "train")
    assert capsys.readouterr().out == "clip 7\n"

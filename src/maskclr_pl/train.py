"""`python -m maskclr_pl.train`: train and test a model, and write a run folder.

Without overrides, the command trains a tiny DSTformer with MaskCLR on toy data.
"""

from collections.abc import Sequence

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from maskclr_pl.cli import command


@command("train")
def main(cfg: DictConfig) -> float | None:
    """Hydra entry point: see `run`."""
    return run(cfg, HydraConfig.get().overrides.task)


def run(cfg: DictConfig, overrides: Sequence[str] = ()) -> float | None:
    """Train and test one run.

    Args:
        cfg: Composed from `conf/train.yaml`; completed in place.
        overrides: Overrides that `cfg` was composed with; settings that follow from the data or
            from another run never replace them.

    Returns:
        Value of the metric `cfg.objective`, for sweepers; None if there is none.

    Raises:
        InputError: If the settings contradict each other or the data.
    """
    # imported here because torch and Lightning take seconds, which `--help` should not wait for
    from maskclr_pl.training.run import train

    return train(cfg, list(overrides))


if __name__ == "__main__":
    main()

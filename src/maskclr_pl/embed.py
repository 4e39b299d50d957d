"""`python -m maskclr_pl.embed ckpt_path=RUN`: features of clips as a file."""

from pathlib import Path

from omegaconf import DictConfig

from maskclr_pl.analysis.features import ClipFeatures, embed, feature_attributes, write_features
from maskclr_pl.checkpoint.load import checkpoint_path, load_run
from maskclr_pl.checkpoint.restore import (
    iterate_batches,
    restore_data,
    run_folder_of,
    select_device,
)
from maskclr_pl.cli import command, log
from maskclr_pl.command_line import shell_command
from maskclr_pl.config.container import to_container
from maskclr_pl.data.datamodule import SkeletonDataModule
from maskclr_pl.data.dataset import ClipDataset
from maskclr_pl.types import InputError

_PARTS = ("test", "train", "val")


@command("embed")
def main(cfg: DictConfig) -> None:
    """Write the features of a split that a method's backbone computes, whatever the method."""
    path = checkpoint_path(cfg.ckpt_path, cfg.which)
    method, info = load_run(path, cfg.trusted)
    in_training = str(cfg.split) in ("train", "val")
    data = restore_data(info, to_container(cfg.data), run_folder_of(path) if in_training else None)
    device = select_device(cfg.device)
    method.to(device)
    part = _part(data, str(cfg.split))
    log.info(
        "embedding  %d clips of %s by %s, on %s", len(part), data.store.path, path, device.type
    )
    features, label = embed(method, iterate_batches(method, data, part, device))
    output = Path(str(cfg.output or run_folder_of(path) / "features.h5"))
    if output.is_dir():
        raise InputError(f"{output} is a folder; type output={output}/features.h5")
    facts = feature_attributes(
        info,
        run=str(run_folder_of(path)),
        checkpoint=path.name,
        data=str(data.store.path),
        source_sha256=data.store.source_hash,
        split=str(cfg.split),
    )
    if older := write_features(output, ClipFeatures(features, label, part.names, facts)):
        log.info("kept       the earlier file as %s", older)
    log.info("features   %s   %d clips, %d numbers each", output, *features.shape)
    runs = [str(run_folder_of(path)), "ANOTHER_RUN"]
    log.info("next       %s", shell_command("report", runs=runs))


def _part(data: SkeletonDataModule, split: str) -> ClipDataset:
    """The clips of one of the parts that the run used, or of a split of the store."""
    if split in _PARTS:
        part: ClipDataset = getattr(data, split)
        if not len(part):
            raise InputError(f"split={split}: the run held no clips out for it")
        return part.as_tested()
    if split not in data.store.splits:
        raise InputError(
            f"split={split}: expected {', '.join(_PARTS)}, or a split of {data.store.path}: "
            f"{', '.join(data.store.splits)}"
        )
    part = data.test.as_tested()
    part.rows = data.store.rows(split)
    return part


if __name__ == "__main__":
    main()

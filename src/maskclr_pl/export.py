"""`python -m maskclr_pl.export ckpt_path=RUN`: write a trained model as one portable file."""

from pathlib import Path

from omegaconf import DictConfig

from maskclr_pl.checkpoint.load import checkpoint_path, load_classifier
from maskclr_pl.cli import command, log
from maskclr_pl.inference.exporter import (
    BATCH_SIZES,
    SUFFIX,
    check_installed,
    export,
    export_metadata,
)
from maskclr_pl.runs.read import run_folder_of
from maskclr_pl.types import InputError


@command("export")
def main(cfg: DictConfig) -> None:
    """Write one file that maps clips to logits."""
    run(cfg)


def run(cfg: DictConfig) -> Path:
    """Export a model and return the file."""
    if cfg.format not in SUFFIX:
        raise InputError(f"format={cfg.format}: expected {' or '.join(SUFFIX)}")
    check_installed(cfg.format)
    path = checkpoint_path(cfg.ckpt_path, cfg.which)
    output = _output_path(cfg, path)
    method, info = load_classifier(path, cfg.trusted)
    log.info("exporting  %s", path)
    difference = export(method, info, cfg.format, output)
    metadata = export_metadata(info)
    log.info("input      %s", metadata["input"].replace("; ", "\n           "))
    log.info("output     %s; K = %d", metadata["output"], len(metadata["class_names"]))
    sizes = ", ".join(map(str, BATCH_SIZES))
    log.info(
        "verified   on random batches of %s clips: logits differ by %.1e at most", sizes, difference
    )
    log.info("file       %s   %.1f MB", output, output.stat().st_size / 1e6)
    log.info("next       %s", _usage(cfg.format, output))
    return output


def _output_path(cfg: DictConfig, checkpoint: Path) -> Path:
    suffix = SUFFIX[cfg.format]
    output = Path(str(cfg.output or run_folder_of(checkpoint) / f"model{suffix}"))
    if output.is_dir():
        raise InputError(f"{output} is a folder; pass output={output}/model{suffix}")
    if output.suffix != suffix:  # runtimes choose their reader by the suffix
        raise InputError(f"output={output}: expected a name that ends in {suffix}")
    if output.exists() and cfg.overwrite is not True:
        raise InputError(f"{output} exists already; pass overwrite=true to replace it")
    return output


def _usage(file_format: str, output: Path) -> str:
    if file_format == "onnx":
        return f'in Python, onnxruntime.InferenceSession("{output}").run(None, {{"clip": clip}})'
    return f'in Python, torch.export.load("{output}").module()(clip)'


if __name__ == "__main__":
    main()

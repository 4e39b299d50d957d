"""`python -m maskclr_pl.export ckpt_path=RUN`: a trained model for other programs."""

from pathlib import Path

from omegaconf import DictConfig

from maskclr_pl.checkpoint.load import checkpoint_path, load_run
from maskclr_pl.checkpoint.restore import run_folder_of
from maskclr_pl.cli import command, log
from maskclr_pl.command_line import shell_command
from maskclr_pl.inference.exporter import BATCHES, SUFFIX, check_installed, export, export_metadata
from maskclr_pl.methods import Classifier
from maskclr_pl.types import InputError


@command("export")
def main(cfg: DictConfig) -> None:
    """Write one file that takes clips and gives logits."""
    if cfg.format not in SUFFIX:
        raise InputError(f"format={cfg.format}: expected {' or '.join(SUFFIX)}")
    check_installed(cfg.format)
    path = checkpoint_path(cfg.ckpt_path, cfg.which)
    output = _output(cfg, path)
    method, info = load_run(path, cfg.trusted)
    if not isinstance(method, Classifier):
        raise InputError(
            f"{path}: {type(method).__name__} learns without labels and has no classes; use "
            f"{shell_command('train', 'method=finetune', init_from=cfg.ckpt_path)} first"
        )
    log.info("exporting  %s", path)
    difference = export(method, info, cfg.format, output)
    facts = export_metadata(info)
    log.info("input      %s", facts["input"].replace("; ", "\n           "))
    log.info("output     %s; K = %d", facts["output"], len(facts["class_names"]))
    log.info(
        "compared   with the model on made-up batches of %s clips: logits differ by %.1e at most",
        *(", ".join(map(str, BATCHES)), difference),
    )
    log.info("file       %s   %.1f MB", output, output.stat().st_size / 1e6)
    log.info("next       %s", _how_to_run(cfg.format, output))


def _output(cfg: DictConfig, path: Path) -> Path:
    """The file to write; one that is there already is kept."""
    suffix = SUFFIX[cfg.format]
    output = Path(str(cfg.output or run_folder_of(path) / f"model{suffix}"))
    if output.is_dir():
        raise InputError(f"{output} is a folder; type output={output}/model{suffix}")
    if output.suffix != suffix:  # runtimes choose their reader by it
        raise InputError(f"output={output}: expected a name that ends in {suffix}")
    if output.exists() and cfg.overwrite is not True:
        raise InputError(f"{output} exists already; type overwrite=true to replace it")
    return output


def _how_to_run(form: str, output: Path) -> str:
    if form == "onnx":
        return f'in Python, onnxruntime.InferenceSession("{output}").run(None, {{"clip": clip}})'
    return f'in Python, torch.export.load("{output}").module()(clip)'


if __name__ == "__main__":
    main()

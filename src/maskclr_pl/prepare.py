"""`python -m maskclr_pl.prepare`: a published file becomes a store.

Example: `python -m maskclr_pl.prepare source=pyskl input=ntu60_hrnet.pkl output=ntu60.h5
skeleton=coco17`.
"""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import hydra
from omegaconf import DictConfig
from rich.progress import track

from maskclr_pl.cli import log, plain, verb
from maskclr_pl.data import Recording, Store, write_store
from maskclr_pl.skeletons import load_skeleton, read_yaml
from maskclr_pl.types import InputError


@verb("prepare")
def main(cfg: DictConfig) -> None:
    """Convert one file."""
    values = plain(cfg)  # says which of input, output and skeleton is missing
    output = Path(values["output"])
    if output.exists() and not cfg.overwrite:
        raise InputError(f"{output} exists already; type overwrite=true to replace it")
    skeleton = load_skeleton(values["skeleton"])
    names = _class_names(values["class_names"], values["skeleton"])
    log.info("reading    %s", values["input"])
    source = hydra.utils.instantiate(cfg.source, _convert_="all")
    store = write_store(
        output,
        _with_progress(source, len(source)),
        skeleton=skeleton,
        splits=source.splits,
        class_names=names,
        source_hash=source.hash,
    )
    _describe(store)


def _class_names(given: str | None, skeleton: str) -> list[str] | None:
    if given is None:
        if not str(skeleton).lower().endswith((".yaml", ".yml")):
            return None
        found = read_yaml(Path(skeleton)).get("class_names")
        return None if found is None else [str(name) for name in found]
    path = Path(given)
    if path.suffix.lower() in (".yaml", ".yml"):
        found = read_yaml(path).get("class_names")
        if not isinstance(found, list):
            raise InputError(f"{path}: expected a list `class_names`")
        return [str(name) for name in found]
    try:
        return [line.strip() for line in path.read_text().splitlines() if line.strip()]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def _with_progress(source: Iterable[Recording], total: int) -> Iterator[Recording]:
    if sys.stdout.isatty():
        yield from track(source, total=total, description="clips")
    else:
        yield from source


def _describe(store: Store) -> None:
    frames = store.frames
    log.info(
        "store      %s   %d clips   %d classes   %d joints (%s)   %s   %d to %d frames",
        *(store.path, len(store), len(store.class_names), len(store.skeleton)),
        *(store.skeleton.name, store.coordinates, frames.min(), frames.max()),
    )
    for split, rows in store.splits.items():
        log.info("split      %-20s %d clips", split, len(rows))
    log.info(
        "next       python -m maskclr_pl.train data=custom data.path=%s "
        "data.train_split=... data.test_split=...",
        store.path,
    )
    log.info("%s", store.path)


if __name__ == "__main__":
    main()

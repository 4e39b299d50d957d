"""Types of the settings that are not arguments of a class."""

from typing import Annotated, Any, Literal

from pydantic import Field

_Count = Annotated[int, Field(ge=1)]
_Texts = list[str]
_Steps = dict[str, dict[str, Any]] | list[dict[str, Any]]  # with names or without
_Joint = str | int

SETTINGS: dict[str, Any] = {
    # train
    "seed": Annotated[int, Field(ge=0, lt=2**32)],
    "output_dir": Annotated[str, Field(min_length=1)] | None,
    "init_from": str | None,
    "init_required": bool,
    "init_overlap": str,
    "trusted": _Texts,
    "resume": str | None,
    "compile": bool,
    "checkpointing": bool,
    "check_only": bool,
    "objective": str,
    "monitor_split": str,
    "download": str | None,
    "source": dict[str, Any] | None,
    "paths.data": str,
    "clip.persons": _Count,
    "clip.frames": _Count,
    "clip.joints": _Count | None,
    "clip.channels": _Count,
    "clip.classes": _Count | None,
    "clip.skeleton": str | None,
    "clip.parts": list[list[int]] | None,
    "clip.pairs": list[tuple[int, int]] | None,
    "clip.root": _Joint | None,
    "clip.shoulders": list[_Joint] | None,
    "clip.center": _Joint | None,
    "clip.stream": str,
    "clip.released": bool,
    "clip.released_scores": bool,  # in runs of earlier versions
    "augment.coordinates": str,
    "augment.sampling": str,
    "augment.counterpart": str | None,
    "augment.augment": _Steps,
    "augment.preprocess": _Steps,
    "augment.extreme": _Steps,
    "callbacks": dict[str, dict[str, Any]],
    "logger": dict[str, dict[str, Any]],
    # trained models: evaluate, predict, embed, export
    "ckpt_path": str,
    "which": Literal["best", "last"],
    "device": str | None,
    "draws": _Count,
    "adversarial": Any,  # numbers, checked by evaluate
    "second_store": str | None,
    "figures": str | _Texts | None,
    "log": bool,
    "corruption": dict[str, dict[str, Any]],
    "data.path": str | None,
    "data.test_split": str | None,
    "data.batch_size": _Count | None,
    "data.num_workers": Annotated[int, Field(ge=0)] | None,
    "split": str | None,
    "window": _Count | None,
    "stride": _Count | None,
    "per_person": bool,
    "max_persons": _Count,
    "fps": Annotated[float, Field(gt=0)] | None,
    "top": _Count,
    "gif": bool,
    "max_missing": Annotated[float, Field(ge=0, le=1)],
    "format": str,
    # prepare, and what it shares with predict
    "input": str | _Texts,
    "output": str | None,
    "skeleton": str | None,
    "class_names": str | None,
    "first_label": Annotated[int, Field(ge=0)],
    "test_share": float,
    "split_seed": Annotated[int, Field(ge=0)],
    "frame_size": tuple[_Count, _Count] | None,
    "units": str | None,
    "on_error": Literal["stop", "skip"],
    "check": bool,
    "overwrite": bool,
    "workers": Annotated[int, Field(ge=0)] | None,
    # report
    "kind": str,
    "runs": str | _Texts,
    "labels": _Texts | None,
    "weights": Any,  # numbers, checked by report
    "published": str | _Texts | None,
}
"""Key that is not an argument of a class -> type of its value."""

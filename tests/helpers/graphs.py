"""How often a compiled backbone is traced; prints JSON (see tests/backbones/test_fast_paths.py).

`python -m tests.helpers.graphs`: each backbone, supervised and MaskCLR, takes steps with batches of
different numbers of persons, plain and compiled.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

import torch

from maskclr_pl.heads import Projector
from maskclr_pl.methods import Recognizer
from maskclr_pl.methods.pretrain.moco import EMAEncoder
from tests.backbones.test_fast_paths import MIXED, batch, frames_of, recognizer, step

NAMES = ("dstformer", "sttformer", "transformer")
CROWDS = [MIXED, [[True, True]] * 4, [[True, False]] * 4, [[True, True], *MIXED]]


def steps(model: Recognizer) -> list[float]:
    clips = [batch(crowd, frames_of(model)) for crowd in CROWDS]
    return [step(model, one)[0].item() for one in clips]


class Counted:
    """A backend that runs graphs as they are and counts them."""

    def __init__(self) -> None:
        torch._dynamo.reset()
        self.count = 0

    def __call__(self, graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        self.count += 1
        return graph.forward


def measure(name: str, masked: bool, **options: Any) -> dict[str, Any]:
    """Graphs, losses compiled (the whole forward pass in one graph, or an error) and plain."""
    counted = Counted()
    model = recognizer(name, masked, **options)
    model.compile_backbone(backend=counted)
    losses = steps(model)
    expected = steps(recognizer(name, masked, **options))
    return {"graphs": counted.count, "losses": losses, "expected": expected}


def keys(name: str) -> dict[str, Any]:
    """Graphs of a key network, which is no backbone of a method's own."""
    counted = Counted()
    model = recognizer(name, masked=False)
    dim = model.backbone.dim
    network = EMAEncoder(model.backbone, Projector(dim, dim, 8), momentum=0.9)
    network.backbone.compile(fullgraph=True, backend=counted)
    for crowd in CROWDS:
        clips = batch(crowd, frames_of(model))
        x, clip_index = model.pack(clips["clip"], clips)
        network(x, clip_index, len(crowd))
    return {"graphs": counted.count}


if __name__ == "__main__":
    found = {
        f"{name} {masked}": measure(name, masked) for name in NAMES for masked in (False, True)
    }
    found["keys"] = keys("transformer")
    found["visible"] = measure("transformer", True, drop_hidden=True)
    sys.stdout.write(json.dumps(found))

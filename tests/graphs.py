"""How often a compiled backbone is traced; prints JSON (see tests/test_fast_paths.py).

`python -m tests.graphs`: each backbone, supervised and MaskCLR, takes steps with batches of
different numbers of persons, plain and compiled.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

import torch

from maskclr_pl.methods import Recognizer
from tests.test_fast_paths import MIXED, batch, frames_of, recognizer, step

NAMES = ("dstformer", "sttformer", "transformer")
CROWDS = [MIXED, [[True, True]] * 4, [[True, False]] * 4, [[True, True], *MIXED]]


def steps(model: Recognizer) -> list[float]:
    clips = [batch(crowd, frames_of(model)) for crowd in CROWDS]
    return [step(model, one)[0].item() for one in clips]


def measure(name: str, masked: bool, **options: Any) -> dict[str, Any]:
    """Graphs, losses compiled (the whole forward pass in one graph, or an error) and plain."""
    count = 0

    def counted(graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        nonlocal count
        count += 1
        return graph.forward

    torch._dynamo.reset()
    model = recognizer(name, masked, **options)
    model.compile_backbone(backend=counted)
    losses = steps(model)
    expected = steps(recognizer(name, masked, **options))
    return {"graphs": count, "losses": losses, "expected": expected}


if __name__ == "__main__":
    found = {
        f"{name} {masked}": measure(name, masked) for name in NAMES for masked in (False, True)
    }
    found["visible"] = measure("transformer", True, drop_hidden=True)
    sys.stdout.write(json.dumps(found))

"""Values of the wrong type, and their insertion into lists and dicts."""

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np


def nested(depth: int, kind: Callable[[list[Any]], Any] = list) -> Any:
    """Nest lists."""
    value: Any = kind([])
    for _ in range(depth):
        value = kind([value])
    return value


def json_value(rng: Random) -> Any:
    """Draw a value that JSON can represent, rarely a valid one."""
    values = (
        *(None, True, False, 0, 1, -1, 7, 2**31, 2**40, 2**63, -(2**63) - 1, 2**64, 10**400),
        *(0.5, -0.0, 1e308, -1e308, 1e-320, 65520.0, 1e39, float("nan"), float("inf")),
        *(
            "",
            "x",
            "0",
            "1",
            "NaN",
            "\udcff",
            "a\nb",
            "a/b",
            "..",
            "\0",
            "a\0",
            "é" * 300,
            "a" * 70_000,
        ),
        *([], {}, [[]], [{}], [[1], [2, 3]], {"": None}, [1, 2, 3], {"keypoint": []}, [0] * 51),
    )
    if rng.random() < 0.1:
        return nested(rng.choice((3, 40, 300, 900)))
    return rng.choice(values)


def pickle_value(rng: Random) -> Any:
    """Draw a value that a pickle can represent."""
    if rng.random() < 0.3:
        return json_value(rng)
    shape = rng.choice(((), (0,), (3,), (1, 2, 17, 2), (1, 2, 17), (0, 2, 17, 2), (1, 0, 17, 3)))
    dtype = rng.choice(("f2", ">f4", "f8", "i1", "u8", "?", "c8", "S3", "U2", ">i4"))
    array = np.full(shape, rng.choice((0, 1, -1, 100)), "i8").astype(dtype)
    if array.dtype.kind == "f" and array.size:
        array.reshape(-1)[-1] = rng.choice((np.nan, np.inf, -np.inf, 6e4))
    values = (
        *(array, np.asfortranarray(array), array.tolist(), array[..., None], array.T),
        *(np.float64("nan"), np.int8(-1), np.uint64(2**64 - 1), np.float32(1), np.bool_(True)),
        *(b"\xff", bytearray(9), 1j, 10**5000, (), (1, 2), (0, 0), (-5, 5), (2**70, 1), {1, 2}),
        *({(1, 2): 3}, nested(400), nested(400, tuple), np.zeros((1, 100_000, 17, 2), "f2")),
    )
    return rng.choice(values)


def alter(content: Any, rng: Random, junk: Callable[[Random], Any]) -> Any:
    """Replace, remove, swap or rename a few values of the content."""
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        holder = [content]
        _change(holder, rng, junk)
        content = holder[0]
    return content


def _change(holder: Any, rng: Random, junk: Callable[[Random], Any]) -> None:
    """Change something at a random depth of nested lists and dicts."""
    key: Any = 0
    while True:
        inside = holder[key]
        if not isinstance(inside, list | dict) or not inside or rng.random() < 0.15:
            break
        holder = inside
        key = rng.choice(list(holder)) if isinstance(holder, dict) else rng.randrange(len(holder))
    what = rng.choice(("junk", "junk", "junk", "remove", "rename", "swap", "wrap", "number"))
    keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
    other = rng.choice(keys)
    if what == "remove" and len(holder) > 1:
        del holder[key]
    elif what == "rename" and isinstance(holder, dict):
        holder[rng.choice((str(key).upper(), f"{key}x", "", "\udcff", other))] = holder.pop(key)
    elif what == "swap":
        holder[key], holder[other] = holder[other], holder[key]
    elif what == "wrap":
        holder[key] = rng.choice(([holder[key]], {"data": holder[key]}, str(holder[key])))
    elif what == "number" and isinstance(holder[key], int | float | np.ndarray):
        with np.errstate(all="ignore"):
            holder[key] = holder[key] * rng.choice((-1, 0, 1000, 0.5, 1e30))
    else:
        holder[key] = junk(rng)


def hostile_node(marker: Path, rng: Random) -> dict[str, Any]:
    """Draw a config node that would create the marker if instantiated."""
    command = f"touch {marker}"
    calls: tuple[dict[str, Any], ...] = (
        {"_target_": "os.system", "command": command},
        {"_target_": "subprocess.Popen", "args": command, "shell": True},
        {"_target_": "builtins.open", "file": str(marker), "mode": "w"},
        {"_target_": "logging.FileHandler", "filename": str(marker)},
        {"_target_": "pathlib.Path.touch", "self": str(marker)},
        {"_target_": "numpy.save", "file": str(marker), "arr": 1},
        {"_target_": "torch.save", "obj": 1, "f": str(marker)},
        {"_target_": "maskclr_pl.data.store.reader.os.system", "command": command},
        {"_target_": "maskclr_pl.runs.results.write_lines", "path": f"{marker}", "lines": []},
        {"_target_": "torch.nn.Sequential", "a": [{"_target_": "os.system", "command": command}]},
        {"_target_": "builtins.exec", "_args_": [f"open({str(marker)!r}, 'w')"]},
    )  # fmt: skip
    return dict(rng.choice(calls))


def insert_node(content: Any, rng: Random, node: Any) -> None:
    """Insert a node at a random place of nested lists and dicts."""
    while True:
        inside = list(content) if isinstance(content, dict) else list(range(len(content)))
        deeper = [key for key in inside if isinstance(content[key], dict | list) and content[key]]
        if not deeper or rng.random() < 0.3:
            break
        content = content[rng.choice(deeper)]
    if isinstance(content, dict):
        content[rng.choice([*inside, "more"])] = node
    else:
        content.append(node)

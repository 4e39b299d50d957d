"""Damage to the structure of archives and stores."""

import io
import json
import re
import zipfile
from pathlib import Path
from random import Random
from typing import Any

import h5py
import numpy as np

from tests.fuzz.values import json_value


def members(path: Path, rng: Random) -> str:
    """Swap, rename, repeat or change members of an archive."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    one, other = (rng.choice(list(members)) for _ in range(2))
    what = rng.choice(("swap", "rename", "remove", "header", "array", "array", "cut", "repeat"))
    repeated: list[str] = [one] if what == "repeat" else []
    if what == "swap":
        members[one], members[other] = members[other], members[one]
    elif what == "rename":
        members[rng.choice(("x.npy", one.upper(), f"../{one}", "é\n"))] = members.pop(one)
    elif what == "remove":
        del members[one]
    elif what == "header":
        numbers = list(re.finditer(rb"\d+", members[one][:128]))[1:]
        number = rng.choice(numbers)
        new = rng.choice((b"0", b"-1", b"99999999999", b"9" * 60, b"True", b"1e9", b"3,3"))
        members[one] = members[one][: number.start()] + new + members[one][number.end() :]
    elif what == "array":
        members[one] = _array_file(np.load(io.BytesIO(members[one])), rng)
    elif what == "cut":
        members[one] = members[one][: rng.randrange(len(members[one]))]
    how = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))
    with zipfile.ZipFile(path, "w", how) as archive:
        for name in [*members, *repeated]:
            archive.writestr(name, members[name])
    return f"members, {what}"


def _array_file(array: np.ndarray, rng: Random) -> bytes:
    with np.errstate(all="ignore"):
        array = rng.choice(
            (
                *(array[:0], array[:, :0], array[..., :-1], array[0], array.T, array[None]),
                *(array * -1, array * np.nan, array * np.inf, array.astype("i4"), array > 0),
                *(array.astype(kind) for kind in (">f8", "c8", "S4", "f2", "u1", "O")),
                np.asfortranarray(array),
            )
        )
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def tables(path: Path, rng: Random) -> str:
    """Remove or replace arrays and attributes of a store."""
    with h5py.File(path, "r+") as file:
        if rng.random() < 0.3:
            name = rng.choice(sorted(file.attrs))
            values = (_attribute(rng), _attribute(rng), str(file.attrs[name])[:-9], h5py.Empty("f"))
            file.attrs[name] = rng.choice(values)
            return f"attribute {name}"
        names = [*file, "splits/train", "splits/test", "splits/x", "subject", "camera"]
        name = rng.choice(names)
        old = file[name] if name in file else file["label"]
        array = old[()] if isinstance(old, h5py.Dataset) else np.zeros(3)
        if name in file:
            del file[name]
        what = rng.choice(("gone", "array", "array", "array", "layout", "link", "group", "huge"))
        if what == "array":
            file[name] = _other_array(array, rng)
        elif what == "layout":
            file.create_dataset(
                name, data=array, chunks=True, compression=rng.choice((None, "gzip"))
            )
        elif what == "link":
            links = (h5py.SoftLink("/nowhere"), h5py.ExternalLink("other.h5", "/x"))
            file[name] = rng.choice((*links, h5py.SoftLink(f"/{name}"), file["frames"]))
        elif what == "group":
            file.create_group(name)
        elif what == "huge":
            shape = rng.choice(((2**40,), (2**33, 2), (2**60,)))
            file.create_dataset(
                name, shape, array.dtype, chunks=rng.choice((None, (4,) * len(shape)))
            )
    return f"array {name}, {what}"


def _attribute(rng: Random) -> Any:
    texts = (
        "[1, 2]",
        '{"name": 1}',
        "[[]]",
        '["a"]',
        "{",
        b"\xff\xfe",
        "",
        "[" * 2000 + "]" * 2000,
    )
    numbers = (2**62, -1, 1.5, np.nan, np.zeros(0), np.zeros((2, 2)), np.arange(3), True)
    return rng.choice((*texts, *numbers, json.dumps(json_value(rng))[:60_000]))


def _other_array(array: np.ndarray, rng: Random) -> Any:
    if array.dtype.kind not in "fiu":
        values: Any = (
            array[:-1],
            array[::-1],
            np.array([b"\xff"] * len(array)),
            np.zeros(len(array)),
        )
        return rng.choice((*values, ["é\0"] * len(array), "text", array[..., None], array[:0]))
    with np.errstate(all="ignore"):
        damaged = array.copy()
        if damaged.size:
            number = rng.choice((0, -1, 1, 7, 100, 10**6, 2**31, 2**40, 2**63, np.nan, np.inf))
            at = rng.randrange(damaged.size)
            damaged.reshape(-1)[at] = np.array(float(number)).astype(array.dtype)
        values = (
            *(
                damaged,
                damaged,
                damaged,
                array[:-1],
                array[::-1].copy(),
                array[:0],
                array[..., None],
            ),
            *(array * 0, array * -1, array.astype("f4"), array.astype("i1"), array.astype("S4")),
            *(
                array.astype(">i8"),
                array.astype("c8"),
                array.reshape(-1)[0],
                np.concatenate([array, array]),
            ),
        )
        return rng.choice(values)

"""Damage to files: in their bytes, in their text, in the values they hold, in the folder."""

import io
import json
import os
import pickle
import re
import shutil
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import h5py
import numpy as np

_NUMBERS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1)
_WORDS = (
    *(b"", b"0", b"-1", b"2", b"25", b"1e999", b"-1e999", b"NaN", b"nan", b"Infinity", b"inf"),
    *(b"99999999999999999999", b"9" * 5000, b"1_0", b"0x10", b"1,5", b"1.", b"-", b"+1", b"\0"),
    *(
        "１²".encode(),
        b"\xff\xfe",
        "é\u2028".encode(),
        b"x" * 70_000,
        b'"',
        b"\n\n",
        b"null",
        b"[]",
    ),
    *(b"[" * 100, b"[" * 5000 + b"]" * 5000, b'{"a":' * 900 + b"1" + b"}" * 900),
)


def nested(depth: int, kind: Callable[[list[Any]], Any] = list) -> Any:
    """Lists in lists."""
    value: Any = kind([])
    for _ in range(depth):
        value = kind([value])
    return value


def _plain(rng: Random) -> Any:
    """A value that JSON can hold, seldom the right one."""
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


def _pickled(rng: Random) -> Any:
    """A value that a pickle can hold."""
    if rng.random() < 0.3:
        return _plain(rng)
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


def mutate(folder: Path, rng: Random) -> str:
    """Damage one to three files of a folder; returns what was done, in words."""
    done = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        if not files:
            break
        path = rng.choice(files)
        how = _in_folder if rng.random() < 0.06 else rng.choice(_WAYS.get(path.suffix, [_bytes]))
        with warnings.catch_warnings(action="ignore"):
            try:
                what = how(path, rng)
            except Exception:
                what = _bytes(path, rng)  # it was damaged before, in a way that leaves only this
        done.append(f"{path.relative_to(folder)}: {what}")
    return "; ".join(done)


def _in_folder(path: Path, rng: Random) -> str:
    """Something else in the place of a file."""
    others = [other for other in path.parent.iterdir() if other != path and other.is_file()]
    what = rng.choice(("gone", "empty", "folder", "broken link", "loop", "pipe", "other", "name"))
    if what == "name":
        name = rng.choice(("a\nb", "\udcff", "x" * 200, "S000C000P000R000A000", " ", "é"))
        path.rename(path.with_name(name + path.suffix))
        return f"named {name!r}"
    if what == "other" and others:
        shutil.copy(rng.choice(others), path)
        return what
    path.unlink()
    if what == "empty":
        path.touch()
    elif what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what != "gone":
        path.symlink_to(path.name if what == "loop" else "nowhere")
    return what


def _bytes(path: Path, rng: Random) -> str:
    data = bytearray(path.read_bytes())
    what = ""
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        what = rng.choice(("flip", "set", "number", "cut", "insert", "repeat", "remove", "swap"))
        at, to = (rng.randrange(len(data) + 1) for _ in range(2))
        at, to = min(at, to), min(max(at, to), min(at, to) + rng.choice((1, 8, 100, 10**9)))
        if what == "flip" and data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        elif what == "set" and data:
            data[at % len(data)] = rng.choice((0, 0xFF, 0x80, rng.randrange(256)))
        elif what == "number":
            number = struct.pack(rng.choice("<>") + "Q", rng.choice(_NUMBERS))
            data[at : at + 8] = number[: rng.choice((1, 2, 4, 8))]
        elif what == "cut":
            del data[to:]
        elif what == "insert":
            data[at:at] = rng.choice((*_WORDS, rng.randbytes(rng.choice((1, 8, 300)))))
        elif what == "repeat":
            data[at:at] = data[at:to] * rng.choice((1, 1, 3))
        elif what == "remove":
            del data[at:to]
        elif what == "swap":
            data = data[at:] + data[:at]
    if rng.random() < 0.02:
        data = bytearray(data.decode("latin-1").encode(rng.choice(("utf-16", "utf-32", "cp500"))))
    path.write_bytes(data)
    return f"bytes, last {what}"


def _text(path: Path, rng: Random) -> str:
    """A word or a line of a text becomes another."""
    data = path.read_bytes()
    for _ in range(rng.choice((1, 1, 1, 3))):
        words = list(re.finditer(rb"[^\s,:\[\]{}]+", data))
        lines = data.splitlines(keepends=True)
        if not words:
            break
        word, i, j = rng.choice(words), rng.randrange(len(lines)), rng.randrange(len(lines))
        what = rng.choice(("word", "word", "word", "line", "lines", "newline"))
        if what == "word":
            new = rng.choice((*_WORDS, rng.choice(words)[0]))
            data = data[: word.start()] + new + data[word.end() :]
        elif what == "line":
            lines[i] = rng.choice((b"", lines[j], lines[i] * 2))
        elif what == "lines":
            lines[i], lines[j] = lines[j], lines[i]
        if what.startswith("line"):
            data = b"".join(lines)
        elif what == "newline":
            data = data.replace(b"\n", rng.choice((b"\r", b"\r\n", b" ")))
    path.write_bytes(data)
    return "text"


def _json(path: Path, rng: Random) -> str:
    content = _changed(json.loads(path.read_bytes()), rng, _plain)
    path.write_text(json.dumps(content))
    return "JSON values"


def _pickle(path: Path, rng: Random) -> str:
    data = path.read_bytes()
    if b"system" in data:
        raise ValueError("a call, which must not be run here")
    content = _changed(pickle.loads(data), rng, _pickled)
    path.write_bytes(pickle.dumps(content, rng.randrange(6)))
    return "pickled values"


def _code(path: Path, rng: Random) -> str:
    """A call in a pickle, which would make the file RAN beside it if it were run."""
    data = path.read_bytes()
    marker = repr(f"touch {path.parent / 'RAN'}").encode()
    call = rng.choice(
        (b"cos\nsystem\n(S%sltR.", b"(S%sios\nsystem\n.", b"cposix\nsystem\n(S%s\ntR.")
    )
    at = rng.choice((0, 2, 11, rng.randrange(len(data) + 1)))
    path.write_bytes(data[:at] + call.replace(b"%sl", b"%s\n").replace(b"%si", b"%s\ni") % marker)
    return f"a call at {at}"


def _changed(content: Any, rng: Random, junk: Callable[[Random], Any]) -> Any:
    """The content with a few values replaced, removed, repeated or renamed."""
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        holder = [content]
        _change(holder, rng, junk)
        content = holder[0]
    return content


def _change(holder: Any, rng: Random, junk: Callable[[Random], Any]) -> None:
    """Go down from a list or dict to somewhere, and change something there."""
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


def _zip(path: Path, rng: Random) -> str:
    """Members of an archive: exchanged, renamed, repeated, or with other arrays in them."""
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


def _hdf5(path: Path, rng: Random) -> str:
    """Arrays and attributes of a store: removed, or others under their names."""
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
    plain = _plain(rng)
    texts = (
        json.dumps(nested(2000)),
        "[1, 2]",
        '{"name": 1}',
        "[[]]",
        '["a"]',
        "{",
        b"\xff\xfe",
        "",
    )
    numbers = (2**62, -1, 1.5, np.nan, np.zeros(0), np.zeros((2, 2)), np.arange(3), True)
    if isinstance(plain, str) and ("\0" in plain or "\udcff" in plain or len(plain) > 60_000):
        plain = ""
    return rng.choice((*texts, *numbers, json.dumps(plain)[:60_000]))


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


_WAYS: dict[str, list[Callable[[Path, Random], str]]] = {
    ".pkl": [_bytes, _pickle, _pickle, _code],
    ".json": [_bytes, _text, _json, _json],
    ".npz": [_bytes, _zip, _zip],
    ".skeleton": [_bytes, _text, _text],
    ".csv": [_bytes, _text, _text],
    ".h5": [_bytes, _hdf5],
}

"""Damage to files: to their bytes, text or values, or to their folder."""

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

import torch
import yaml

from tests.fuzz.containers import members, tables
from tests.fuzz.values import alter, hostile_node, insert_node, json_value, pickle_value

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
    *(b"&a [*a]", b"*a", b"${oc.env:HOME}", b"!!python/object/apply:os.system [ls]", b"2001-99-99"),
)


def mutate(folder: Path, rng: Random) -> str:
    """Damage one to three files of a folder and return a description."""
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
                what = _bytes(path, rng)  # too damaged already for the other ways
        done.append(f"{path.relative_to(folder)}: {what}")
    return "; ".join(done)


def _in_folder(path: Path, rng: Random) -> str:
    """Replace, rename or remove a file."""
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
    """Replace words or lines of a text."""
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
    content = alter(json.loads(path.read_bytes()), rng, json_value)
    path.write_text(json.dumps(content))
    return "JSON values"


def _pickle(path: Path, rng: Random) -> str:
    data = path.read_bytes()
    if b"system" in data:
        raise ValueError("a call, which must not be executed here")
    content = alter(pickle.loads(data), rng, pickle_value)
    path.write_bytes(pickle.dumps(content, rng.randrange(6)))
    return "pickled values"


def _code(path: Path, rng: Random) -> str:
    """Insert a call into a pickle that would create the file RAN if executed."""
    data = path.read_bytes()
    marker = repr(f"touch {path.parent / 'RAN'}").encode()
    call = rng.choice(
        (b"cos\nsystem\n(S%sltR.", b"(S%sios\nsystem\n.", b"cposix\nsystem\n(S%s\ntR.")
    )
    at = rng.choice((0, 2, 11, rng.randrange(len(data) + 1)))
    path.write_bytes(data[:at] + call.replace(b"%sl", b"%s\n").replace(b"%si", b"%s\ni") % marker)
    return f"a call at {at}"


def _yaml(path: Path, rng: Random) -> str:
    """Change values of a configuration, or insert a node that would create the file RAN."""
    content = yaml.safe_load(path.read_text())
    if rng.random() < 0.3:
        insert_node(content, rng, hostile_node(path.parent / "RAN", rng))
        what = "a call"
    else:
        content, what = alter(content, rng, json_value), "YAML values"
    path.write_text(yaml.safe_dump(content))
    return what


def _checkpoint(path: Path, rng: Random) -> str:
    """Change values or weights of a checkpoint, or insert calls into its settings."""
    content = torch.load(path, weights_only=True)
    what = rng.choice(("settings", "settings", "call", "call", "content", "weights"))
    if what == "settings":
        content["maskclr_pl"] = alter(content["maskclr_pl"], rng, json_value)
    elif what == "call":
        insert_node(content["maskclr_pl"]["config"], rng, hostile_node(path.parent / "RAN", rng))
    elif what == "content":
        content = alter(content, rng, json_value)
    else:
        name = rng.choice(list(content["state_dict"]))
        weight = content["state_dict"][name]
        content["state_dict"][name] = rng.choice(
            (
                *(weight[None], weight.flatten()[:0], weight.float() * float("nan"), weight > 0),
                *(weight.double(), weight.to(torch.complex64), torch.zeros(1).expand(2**40)),
                *(weight.float().half(), None, [1.0], weight.to("meta")),
            )
        )
    torch.save(content, path)
    return f"checkpoint, {what}"


def _member(path: Path, rng: Random) -> str:
    """Change a record of the zip archive of a checkpoint."""
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice(list(records))
    what = rng.choice(("zeros", "cut", "gone", "squeezed", "code"))
    if what == "zeros":
        records[name] = bytes(rng.choice((0, 1, 10**6, 150 << 20)))
    elif what == "cut":
        records[name] = records[name][: rng.randrange(len(records[name]) + 1)]
    elif what == "gone":
        del records[name]
    elif what == "code":
        name = next(one for one in records if one.endswith("data.pkl"))
        records[name] = f"cos\nsystem\n(S'touch {path.parent / 'RAN'}'\ntR.".encode()
    how = zipfile.ZIP_DEFLATED if what in ("zeros", "squeezed") else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", how, compresslevel=1) as archive:
        for one, data in records.items():
            archive.writestr(one, data)
    return f"record, {what}"


_WAYS: dict[str, list[Callable[[Path, Random], str]]] = {
    ".pkl": [_bytes, _pickle, _pickle, _code],
    ".json": [_bytes, _text, _json, _json],
    ".npz": [_bytes, members, members],
    ".skeleton": [_bytes, _text, _text],
    ".csv": [_bytes, _text, _text],
    ".h5": [_bytes, tables],
    ".yaml": [_bytes, _text, *[_yaml] * 6],
    ".ckpt": [_bytes, _checkpoint, _checkpoint, _checkpoint, _member],
}

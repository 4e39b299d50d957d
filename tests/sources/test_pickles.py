"""Pickles of unknown origin: nothing in them is executed, and memory stays bounded."""

import io
import os
import pickle
import subprocess
import sys
import tracemalloc
from collections import OrderedDict, defaultdict

import numpy as np
import pytest

from maskclr_pl.sources.io import pickles
from maskclr_pl.sources.io.pickles import load_pickle
from maskclr_pl.sources.pyskl import PysklSource
from maskclr_pl.types import InputError


def annotation(name="clip", **values):
    return {"frame_dir": name, "label": 0, "keypoint": np.ones((1, 3, 17, 2)), **values}


def content(*annotations):
    return {"split": {"train": ["good"]}, "annotations": list(annotations)}


class Call:
    """An object whose pickle is a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Name:
    """An object whose pickle is a global, which need not exist."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class NamingPickler(pickle._Pickler):
    """Writes a `Name` as the global of that name."""

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, Name):
            self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
        else:
            super().save(obj, save_persistent_id)

    def save_reduce(self, func, args, *rest, **options):
        if isinstance(func, Call):
            func, args = func.call
        if isinstance(args, tuple) and isinstance(func, Name):
            self.save(func)
            self.save(args)
            self.write(pickle.REDUCE)
        else:
            super().save_reduce(func, args, *rest, **options)


def touch(marker):
    return f"__import__('pathlib').Path({str(marker)!r}).touch()"


ATTACKS = {
    "os.system": lambda m: Call(os.system, f"touch {m}"),
    "eval": lambda m: Call(eval, touch(m)),
    "exec": lambda m: Call(exec, touch(m)),
    "open": lambda m: Call(open, str(m), "w"),
    "subprocess": lambda m: Call(subprocess.check_call, ["touch", str(m)]),
    "getattr": lambda m: Call(Call(getattr, os, "system"), f"touch {m}"),
    "numpy.save": lambda m: Call(np.save, str(m), 0),
    "numpy.load": lambda m: Call(np.load, str(m), None, True),
    "numpy.memmap": lambda m: Call(np.memmap, str(m), "u1", "w+", 0, (1,)),
    "runstring": lambda m: Name("numpy.testing._private.utils", "runstring"),
    "dotted": lambda m: Name("builtins", "list.__class__"),
    "through our module": lambda m: Name("maskclr_pl.sources.pyskl", "os.system"),
    "builtins of python 2": lambda m: Name("__builtin__", "eval"),
}


def attack_pickle(value, path):
    buffer = io.BytesIO()
    NamingPickler(buffer, 2).dump(value)
    path.write_bytes(buffer.getvalue())


@pytest.mark.parametrize("where", ["top", "nested"])
@pytest.mark.parametrize("attack", [a for a in ATTACKS if a != "getattr"])
def test_code_in_a_pickle_never_runs(tmp_path, attack, where):
    marker, path = tmp_path / "marker", tmp_path / "data.pkl"
    payload = ATTACKS[attack](marker)
    if where == "nested":
        payload = content(annotation("good"), annotation("bad", meta={"deep": [(payload,)]}))
    attack_pickle(payload, path)
    with pytest.raises(InputError, match=r"data\.pkl: refused, it contains \S+; a data file"):
        PysklSource(path)
    assert not marker.exists()


def test_attacks_succeed_with_the_standard_unpickler(tmp_path):
    """Control: without protection every attack leaves its marker."""
    for attack in ("os.system", "eval", "exec", "open", "subprocess", "numpy.memmap"):
        marker = tmp_path / attack
        attack_pickle(content(annotation("a", meta=ATTACKS[attack](marker))), tmp_path / "x.pkl")
        pickle.loads((tmp_path / "x.pkl").read_bytes())
        assert marker.exists(), attack


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
@pytest.mark.parametrize("name", ["fromfile", "load", "set_typeDict", "_reconstruct.__class__"])
def test_other_names_of_the_array_module_are_refused(tmp_path, module, name):
    attack_pickle(Name(module, name), tmp_path / "data.pkl")
    with pytest.raises(InputError, match=f"refused, it contains {module}.{name}"):
        load_pickle(tmp_path / "data.pkl")


class Forged:
    """An object array whose dtype claims to hold no objects, so that bytes become pointers."""

    def __init__(self, how):
        self.how = how

    def __reduce__(self):
        state = (3, "|", None, None, None, -1, -1, 0)
        if self.how == "dtype":
            return np.dtype, ("O8", False, True), state
        if self.how == "buffer":
            return np.ndarray, ((1,), Forged("dtype"), b"ABCDEFGH")
        if self.how == "array":
            return np.ndarray, ((1,), "O", b"ABCDEFGH")
        rebuild, arguments, _ = np.zeros(1).__reduce__()
        return rebuild, arguments, (1, (1,), Forged("dtype"), False, b"ABCDEFGH")


READ = """
import sys
from maskclr_pl.sources.pyskl import PysklSource
from maskclr_pl.types import InputError
for path in sys.argv[1:]:
    try:
        list(PysklSource(path))
    except InputError as error:
        print("refused", flush=True)
"""


def test_bytes_never_become_pointers(tmp_path):
    paths = []
    for how in ("state", "buffer", "array"):
        paths.append(tmp_path / f"{how}.pkl")
        paths[-1].write_bytes(pickle.dumps([{**annotation(), "frame_dir": Forged(how)}]))
    command = [sys.executable, "-c", READ, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"ended with {done.returncode}"  # a negative number: it crashed
    assert done.stdout.split() == ["refused"] * len(paths)


@pytest.mark.parametrize(
    "text",
    [
        b"cnumpy\ndtype\n(N(dVharm\nI1\nstb.",  # a state for a class, which would stay
        b"ccollections\nOrderedDict\n)R}Vget\nI1\nsb.",
        b"\x80\x05\x96" + b"\xff" * 5 + b"\0\0\0.",  # a bytearray of 1 TB
        b"cnumpy.core.numeric\n_frombuffer\n(C\0cnumpy\ndtype\n(VS0\ntRL1000000000000L\n\x85VC\ntR.",
        b"cnumpy\nndarray\n((L1000000000000L\ntVi1\ntR.",
    ],
)
def test_other_calls_are_refused(tmp_path, text):
    (tmp_path / "data.pkl").write_bytes(text)
    with pytest.raises(InputError, match="not a pickle, or a damaged one"):
        load_pickle(tmp_path / "data.pkl")
    assert not hasattr(pickles._DType, "harm")


@pytest.mark.parametrize(
    "text",
    [
        b"}" + b")" + b"\x85" * 1000 + b"K\x01s.",  # a tuple, nested deeply, as a key
        b"}(" + b")" + b"\x85" * 1000 + b"K\x01u.",
        b"(" + b")" + b"\x85" * 1000 + b"K\x01d.",
        b"\x8f(" + b")" + b"\x85" * 1000 + b"\x90.",
        b"(" + b")" + b"\x85" * 1000 + b"\x91.",
        b"cbuiltins\nset\n]" + b")" + b"\x85" * 1000 + b"a\x85R.",
        b"ccollections\nOrderedDict\n])" + b"\x85" * 1000 + b"K\x01\x86a\x85R.",
        # a tuple that twice holds a tuple that twice holds ...
        b"K\x01" + b"q\x01h\x01\x86" * 40 + b"}h\x01K\x01s.",
    ],
)
def test_nested_keys_are_refused(tmp_path, text):
    """Hashing a million nested tuples would crash Python, or take forever."""
    (tmp_path / "data.pkl").write_bytes(b"\x80\x04" + text)
    with pytest.raises(InputError, match="a key of type tuple"):
        load_pickle(tmp_path / "data.pkl")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_dicts_and_sets_become_plain(tmp_path, protocol):
    counts = defaultdict(list)
    counts["a"].append(1)
    values = [{1: "a", "b": 2.5, None: b"c"}, OrderedDict(x=1, y=2), counts, {"a", 1}, {np.int8(3)}]
    (tmp_path / "data.pkl").write_bytes(pickle.dumps(values, protocol))
    assert load_pickle(tmp_path / "data.pkl") == values


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("dtype", ["<f2", ">f4", "f8", "i8", "?", "U3"])
def test_arrays_of_all_protocols_are_read(tmp_path, protocol, dtype):
    rng = np.random.default_rng(0)
    arrays = [rng.normal(9, 3, (2, n, 17, 3)).astype(dtype) for n in (0, 1, 40)]
    arrays += [np.asfortranarray(arrays[2]), arrays[2][0, 0, 0, 0], np.array(7).astype(dtype)]
    (tmp_path / "data.pkl").write_bytes(pickle.dumps(arrays, protocol))
    for result, array in zip(load_pickle(tmp_path / "data.pkl"), arrays, strict=True):
        np.testing.assert_array_equal(result, array)
        assert np.shape(result) == array.shape


def test_poses_are_not_copied(tmp_path):
    poses = [np.full((1, 2000, 17, 2), i, np.float16) for i in range(20)]
    (tmp_path / "data.pkl").write_bytes(pickle.dumps(poses, 4))
    tracemalloc.start()
    try:
        load_pickle(tmp_path / "data.pkl")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.2 * sum(pose.nbytes for pose in poses)

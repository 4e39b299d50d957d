import io
import subprocess
import sys
import zipfile

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from maskclr_pl.data import write_store
from maskclr_pl.skeletons.skeleton import SKELETONS
from maskclr_pl.sources.ctrgcn import CtrGcnSource
from maskclr_pl.types import InputError


def clip(frames, bodies=1, *, total=12, seed=0, dtype=np.float32):
    """(total, 150) as the preprocessing writes it: the middle of the spine starts at the origin."""
    rng = np.random.default_rng(seed)
    values = np.zeros((total, 2, 25, 3))
    values[:frames, :bodies] = rng.normal(size=(frames, bodies, 25, 3))
    values[:, :, 1] = np.where(values[:, :, 1].any(2, keepdims=True), values[:, :, 1], 0)
    values[0, 0, 1] = 0
    return values.reshape(total, 150).astype(dtype)


def one_hot(labels, classes=60):
    return np.eye(classes)[labels]  # float64, as published


def arrays(**changes):
    return {
        "x_train": np.stack([clip(5), clip(12, 2, seed=1), clip(1, seed=2)]),
        "y_train": one_hot([3, 59, 0]),
        "x_test": np.stack([clip(7, 2, seed=3), clip(2, seed=4)]),
        "y_test": one_hot([1, 1]),
        **changes,
    }


def saved(folder, values, save=np.savez):
    save(folder / "NTU60_CS.npz", **values)
    return folder / "NTU60_CS.npz"


def expected(row):
    """Joint by joint: cut, drop absent and repeated bodies, move the origin by a micrometer."""
    frames = [row[t].reshape(2, 25, 3) for t in range(len(row))]
    while not frames[-1].any():
        frames.pop()
    bodies = [b for b in range(2) if any(frame[b].any() for frame in frames)]
    if len(bodies) == 2 and all((frame[0] == frame[1]).all() for frame in frames):
        bodies = [0]
    out = np.zeros((len(bodies), len(frames), 25, 3), row.dtype)
    for m, body in enumerate(bodies):
        for t, frame in enumerate(frames):
            for v in range(25):
                origin = frame[body].any() and not frame[body, v].any()
                out[m, t, v] = (1e-6, 0, 0) if origin else frame[body, v]
    return out


def assert_read(source, values):
    at = 0
    for split in ("train", "test"):
        labels = values[f"y_{split}"]
        for row, item in enumerate(values[f"x_{split}"]):
            result = source[at]
            assert result.name == source.name(at) == source.splits[split][row]
            assert result.name == f"{split}_{row:06d}"
            assert result.label == (labels[row].argmax() if labels.ndim == 2 else labels[row])
            half = item.dtype.itemsize == 2
            assert result.keypoint.dtype == (np.float16 if half else np.float32)
            assert np.array_equal(result.keypoint, expected(item).astype(result.keypoint.dtype))
            assert result.score is None
            assert result.frame_size is None
            at += 1
    assert len(source) == at


# --- what is read ---------------------------------------------------------------------------------


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_all_rows_are_read(tmp_path, save, dtype):
    values = arrays()
    values.update({key: values[key].astype(dtype) for key in ("x_train", "x_test")})
    assert_read(CtrGcnSource(saved(tmp_path, values, save)), values)


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.uint64, np.float32, ">i2"])
def test_integer_labels_are_read(tmp_path, dtype):
    labels = {"y_train": np.array([3, 119, 0], dtype), "y_test": np.array([7, 7], dtype)}
    values = arrays(**labels)
    assert_read(CtrGcnSource(saved(tmp_path, values)), values)


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.float16])
def test_one_hot_labels_of_any_type_are_read(tmp_path, dtype):
    values = arrays()
    values.update({key: values[key].astype(dtype) for key in ("y_train", "y_test")})
    assert_read(CtrGcnSource(saved(tmp_path, values)), values)


def test_repeated_second_body_is_dropped(tmp_path):
    single = clip(6, seed=5).reshape(12, 2, 25, 3)
    single[:, 1] = single[:, 0]
    nearly = single.copy()
    nearly[3, 1, 7, 2] += 1e-3  # another body, however close
    values = arrays(x_test=np.stack([single, nearly]).reshape(2, 12, 150))
    source = CtrGcnSource(saved(tmp_path, values))
    assert [source[i].keypoint.shape[0] for i in range(5)] == [1, 2, 1, 1, 2]
    assert_read(source, values)


def test_gaps_are_kept_and_a_lone_second_body_is_first(tmp_path):
    gap, second = clip(8, 2, seed=6), clip(8, 2, seed=7)
    gap[3:5] = 0
    second[:, :75] = 0
    values = arrays(x_test=np.stack([gap, second]))
    source = CtrGcnSource(saved(tmp_path, values))
    assert_read(source, values)
    result = source[3].keypoint
    assert result.shape[:2] == (2, 8)
    assert not result[:, 3:5].any()  # an absent frame stays all zeros
    assert source[4].keypoint.shape[0] == 1


def test_joint_at_the_origin_is_not_missing(tmp_path):
    source = CtrGcnSource(saved(tmp_path, arrays()))
    keypoint = source[0].keypoint
    assert keypoint.any(3).all()
    assert 0 < np.abs(keypoint[0, 0, 1]).max() <= 1e-6


@settings(max_examples=30)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=12), st.booleans())
def test_rows_are_read_in_any_order(tmp_path_factory, order, compressed):
    folder = tmp_path_factory.getbasetemp() / "order"
    folder.mkdir(exist_ok=True)
    values = arrays()
    path = saved(folder, values, np.savez_compressed if compressed else np.savez)
    source = CtrGcnSource(path)
    rows = [*values["x_train"], *values["x_test"]]
    for index in order:
        assert np.array_equal(source[index].keypoint, expected(rows[index]))


def test_archive_becomes_a_store(tmp_path):
    source = CtrGcnSource(saved(tmp_path, arrays()))
    store = write_store(
        tmp_path / "s.h5",
        (source[i] for i in range(len(source))),
        skeleton=SKELETONS["ntu25"],
        splits=source.splits,
        source_hash=source.hash,
    )
    assert store.coordinates == "metres"
    assert store.label.tolist() == [3, 59, 0, 1, 1]
    assert store.rows("test").tolist() == [3, 4]


def test_hash_depends_on_content(tmp_path):
    path = saved(tmp_path, arrays())
    first = CtrGcnSource(path).hash
    assert CtrGcnSource(saved(tmp_path, arrays())).hash == first
    assert CtrGcnSource(saved(tmp_path, arrays(y_test=one_hot([1, 2])))).hash != first


# --- memory ---------------------------------------------------------------------------------------

PEAK = """
import sys, tracemalloc
from maskclr_pl.sources.ctrgcn import CtrGcnSource
tracemalloc.start()
for path in sys.argv[1:]:
    tracemalloc.reset_peak()
    source = CtrGcnSource(path)
    for index in range(len(source)):
        source[index]
    print(tracemalloc.get_traced_memory()[1])
"""


def test_memory_does_not_grow_with_the_file(tmp_path):
    x = np.zeros((400, 300, 150), np.float32)  # 72 MB
    x[:, :100] = 1
    values = arrays(x_train=x, y_train=one_hot([0] * 400))
    values["x_test"] = x[:2]
    (tmp_path / "deflated").mkdir()
    paths = [saved(tmp_path, values), saved(tmp_path / "deflated", values, np.savez_compressed)]
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *paths], capture_output=True, text=True, timeout=120
    )
    peaks = [int(line) for line in done.stdout.split()]
    # a few copies of one row of 180 kB, and the labels; the array has 72 MB
    assert len(peaks) == 2, done.stderr
    assert max(peaks) < 8e6


# --- errors ---------------------------------------------------------------------------------------

X, Y = "x_train.npy", "y_train.npy"
WRONG = {
    "no test": (
        {"x_test": None},
        r"contains 'x_train\.npy'.*, but not x_test\.npy; expected x_train",
    ),
    "no labels": ({"y_train": None}, r"but not y_train\.npy"),
    "st-gcn form": ({"x_train": np.ones((3, 3, 10, 25, 2))}, r"\(3, 3, 10, 25, 2\) float64, exp"),
    "one body": ({"x_train": np.ones((3, 10, 75))}, r"x_train.npy is \(3, 10, 75\) float64"),
    "no frames": ({"x_train": np.ones((3, 0, 150))}, r"\(3, 0, 150\)"),
    "no axes": ({"x_train": np.float32(1)}, r"x_train.npy is \(\) float32"),
    "integers": ({"x_train": np.ones((3, 10, 150), int)}, "int64, expected"),
    "texts": ({"y_train": np.array(["a", "b", "c"])}, "y_train.npy is .3,. <U1, expected"),
    "objects": ({"y_train": np.array([[1], None, 3], object)}, "object, expected"),
    "columns": ({"x_train": np.asfortranarray(np.ones((3, 2, 150)))}, "save it in C order"),
    "counts": ({"y_train": one_hot([1, 2])}, "x_train has 3 clips, but y_train has 2"),
    "two hot": ({"y_train": one_hot([1, 2, 3]) + one_hot([1, 5, 3])}, "row 0 of y_train is neit"),
    "none hot": ({"y_train": np.diag([1.0, 1, 0])}, "row 2 of y_train is neither one-hot"),
    "soft": ({"y_train": np.full((3, 2), 0.5)}, "row 0 of y_train is neither"),
    "nan labels": ({"y_train": np.full((3, 2), np.nan)}, "row 0 of y_train is neither"),
    "negative": ({"y_train": np.array([0, 1, -1])}, "row 2 of y_train is neither"),
    "half": ({"y_train": np.array([0, 1.5, 1])}, "row 1 of y_train is neither"),
    "infinite": ({"y_train": np.array([0, 1, np.inf])}, "row 2 of y_train is neither"),
    "huge": ({"y_train": np.array([0, 2**63, 1], np.uint64)}, "row 1 of y_train is neither"),
    "absent clip": ({"x_train": np.zeros((3, 4, 150))}, "train_000000: all its values are 0"),
    "nan": ({"x_train": np.full((3, 4, 150), np.nan)}, "'train_000000'.*NaN or infinite"),
    "overflow": ({"x_train": np.full((3, 4, 150), 1e300)}, "'train_000000'.*NaN or infinite"),
}


def message_of(path, folder):
    """Return the error message for a file; other exceptions are raised."""
    try:
        source = CtrGcnSource(path)
        recordings = (source[i] for i in range(len(source)))
        write_store(folder / "s.h5", recordings, skeleton=SKELETONS["ntu25"], splits={})
    except InputError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("mistake", WRONG)
def test_malformed_archive_is_refused_in_one_line(tmp_path, mistake):
    changes, message = WRONG[mistake]
    values = {key: item for key, item in arrays(**changes).items() if item is not None}
    result = message_of(saved(tmp_path, values), tmp_path)
    with pytest.raises(InputError, match=message):
        raise InputError(result)
    assert "\n" not in result


def test_other_files_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"gone\.npz: no such file"):
        CtrGcnSource(tmp_path / "gone.npz")
    with pytest.raises(InputError, match="Is a directory"):
        CtrGcnSource(tmp_path)
    (tmp_path / "a.npz").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"a\.npz: no such file"):
        CtrGcnSource(tmp_path / "a.npz")
    for content in (b"", b"PK", b"\x93NUMPY" * 9, np.random.default_rng(0).bytes(1000)):
        (tmp_path / "b.npz").write_bytes(content)
        with pytest.raises(InputError, match=r"b\.npz: not an \.npz archive, or a damaged one"):
            CtrGcnSource(tmp_path / "b.npz")


def header(descr, shape):
    """Build an .npy file with this header and 16 bytes of values."""
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(16)


@pytest.mark.parametrize(
    "member",
    [
        header("'<f4'", "(1000000000000, 300, 150)"),
        header("'<f4'", "(3, 1000000000000, 150)"),
        header("'<f4'", "(3, 300, 150)"),
        header("'<f4'", "(-3, 300, 150)"),
        header("'<f4'", "(" * 90 + ")" * 90),
        header("'<f4'", "-" * 9000 + "1"),
        header("('<f4', (1000000000,))", "(3, 300, 150)"),
        header("[('a', '|O')]", "(3, 300, 150)"),
        header("__import__('os').abort()", "(3, 300, 150)"),
        header("'<f4'", "(True, 300, 150)"),
        b"\x93NUMPY\x09\x00\xff\xff",
        b"",
    ],
)
def test_forged_headers_are_refused(tmp_path, member):
    path = saved(tmp_path, arrays())
    with zipfile.ZipFile(path) as archive:
        others = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {**others, X: member}.items():
            archive.writestr(name, content)
    result = message_of(path, tmp_path)
    assert result.startswith(str(path))
    assert "\n" not in result


def damaged(save):
    buffer = io.BytesIO()
    save(buffer, **arrays(x_train=np.stack([clip(1, total=1)] * 3), x_test=arrays()["x_test"]))
    return buffer.getvalue()


STORED, DEFLATED = damaged(np.savez), damaged(np.savez_compressed)


@pytest.mark.parametrize("data", [STORED, DEFLATED], ids=["stored", "deflated"])
def test_truncated_archive_is_refused(tmp_path, data):
    for size in range(0, len(data), len(data) // 20):
        (tmp_path / "a.npz").write_bytes(data[:size])
        assert "a.npz: not an .npz archive" in message_of(tmp_path / "a.npz", tmp_path)


def test_damaged_values_are_detected_by_checksum(tmp_path):
    """The checksum is verified when the last row is read."""
    data = bytearray(STORED)
    at = data.index(arrays()["x_test"][1, 1].tobytes())
    data[at + 2] ^= 1
    (tmp_path / "a.npz").write_bytes(data)
    result = message_of(tmp_path / "a.npz", tmp_path)
    assert "a damaged one at x_test.npy (Bad CRC-32" in result

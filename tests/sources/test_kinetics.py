import os
import pickle
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from maskclr_pl.data import write_store
from maskclr_pl.skeletons.skeleton import SKELETONS
from maskclr_pl.sources import kinetics
from maskclr_pl.sources.kinetics import KineticsSource, decompress_poses
from maskclr_pl.types import InputError
from tests.reference.kinetics import decompress as looped

SAMPLE = Path(__file__).parents[3] / "shared/samples/k400_annos_sample/mmaction2_tests_sample.pkl"
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)


def annotation(name="clip", frame=(1, 1, 3), label=7, *, box=None, file=None, **values):
    """As in the published index; `raw_file` is there in pyskl's only."""
    frame = np.array(frame, np.int16)
    box = np.full(len(frame), 0.95) if box is None else box
    return {
        "frame_dir": name,
        "label": label,
        "img_shape": (240, 320),
        "original_shape": (240, 320),
        "total_frames": 300,
        "frame_inds": frame,
        "box_score": np.array(box, np.float16),
        **({} if file is None else {"raw_file": file}),
        **values,
    }


def poses(count, seed=0):
    rng = np.random.default_rng(seed)
    xy = rng.uniform(0, 240, (count, 17, 2))
    return np.concatenate([xy, rng.uniform(0.1, 1, (count, 17, 1))], 2).astype(np.float16)


def skeletons_of(items):
    return {item["frame_dir"]: poses(len(item["frame_inds"]), i) for i, item in enumerate(items)}


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(values, 4))
    return path


def index_file(folder, items, split=None):
    names = [item["frame_dir"] for item in items]
    content = {"split": {"train": names} if split is None else split, "annotations": items}
    return save(folder / "k400.pkl", content)


def one_file_a_clip(folder, skeletons):
    for name, keypoint in skeletons.items():
        save(folder / f"{name}.pkl", {"keypoint": keypoint})


def assert_read(source, items, skeletons, threshold=0.5, most=10):
    rows = {source.name(i): i for i in range(len(source))}
    assert len(rows) == len(source) == len(items)
    for item in items:
        name = item["frame_dir"]
        result = source[rows[name]]
        boxes = item["frame_inds"], item["box_score"]
        expected = looped(skeletons[name], *boxes, threshold, most)
        assert np.array_equal(result.keypoint, expected[..., :2])
        assert np.array_equal(result.score, expected[..., 2])
        assert result.keypoint.dtype == result.score.dtype == np.float16
        assert (result.name, result.label, result.frame_size) == (name, item["label"], (240, 320))


# --- both forms -----------------------------------------------------------------------------------


def test_one_file_a_clip(tmp_path):
    items = [annotation("a"), annotation("b", (1, 3, 3, 3, 9), 0), annotation("c", (2,), 399)]
    skeletons = skeletons_of(items)
    one_file_a_clip(tmp_path / "files", skeletons)
    split = {"train": ["c", "a"], "val": ["b"]}
    source = KineticsSource(index_file(tmp_path, items, split), tmp_path / "files")
    assert source.splits == split
    assert list(source.notes) == []
    assert_read(source, items, skeletons)


def test_kpfiles_are_loaded_once_each(tmp_path, monkeypatch):
    """Clips of two files alternate in the index; same names in two folders are told apart."""
    items = [
        annotation(f"clip{i}", (1,) * (i + 1), i, file=f"data/k400/kpfiles/{'ab'[i % 2]}/0.pkl")
        for i in range(10)
    ]
    skeletons = skeletons_of(items)
    for half in range(2):
        content = {item["frame_dir"]: {"keypoint": skeletons[item["frame_dir"]]} for item in items}
        kept = {name: recording for name, recording in content.items() if int(name[-1]) % 2 == half}
        save(tmp_path / "kpfiles" / "ab"[half] / "0.pkl", kept)
    loaded = []
    load = kinetics.load_pickle
    monkeypatch.setattr(kinetics, "load_pickle", lambda path: loaded.append(path) or load(path))
    source = KineticsSource(index_file(tmp_path, items), tmp_path / "kpfiles")
    assert not loaded  # names and tables only
    stored_order = [source[i].name for i in range(10)]
    assert sorted(stored_order) == sorted(skeletons)
    assert [path.parent.name for path in loaded] == ["a", "b"]
    assert_read(source, items, skeletons)


def test_a_damaged_kpfile_is_read_once(tmp_path, monkeypatch):
    items = [annotation(name, file="x/part.pkl") for name in "abc"]
    (tmp_path / "kp").mkdir()
    (tmp_path / "kp" / "part.pkl").write_bytes(b"\x80\x04")
    loaded = []
    load = kinetics.load_pickle
    monkeypatch.setattr(kinetics, "load_pickle", lambda path: loaded.append(path) or load(path))
    source = KineticsSource(index_file(tmp_path, items), tmp_path / "kp")
    for i in range(3):
        with pytest.raises(InputError, match=r"part\.pkl: not a pickle, or a damaged one"):
            source[i]
    assert len(loaded) == 1


def test_hash_depends_on_skeletons(tmp_path):
    items = [annotation("a")]
    one_file_a_clip(tmp_path / "files", skeletons_of(items))
    index = index_file(tmp_path, items)
    first = KineticsSource(index, tmp_path / "files").hash
    assert KineticsSource(index, tmp_path / "files").hash == first
    save(tmp_path / "files" / "b.pkl", {"keypoint": poses(1)})
    assert KineticsSource(index, tmp_path / "files").hash != first


# --- decompression --------------------------------------------------------------------------------

rows = st.lists(
    st.tuples(st.integers(-3, 12), st.sampled_from(THRESHOLDS), st.integers(0, 9)),
    min_size=1,
    max_size=60,
)


@settings(max_examples=100)
@given(rows, st.integers(1, 5), st.sampled_from(THRESHOLDS))
def test_decompression_matches_published_code(rows, most, threshold):
    """Any order of frames; scores with ties, which keep the order of the file."""
    frame, box, score = (np.array(column) for column in zip(*rows, strict=True))
    box = box.astype(np.float64)
    keypoint = poses(len(rows), 1)
    keypoint[..., 2] = score[:, None] / 8  # exact sums, so that both sides see the same ties
    if not (box >= threshold).any():
        return
    kept = box >= threshold
    result, scores = decompress_poses(keypoint[kept], frame[kept], most)
    expected = looped(keypoint, frame, box, threshold, most)
    assert np.array_equal(result, expected[..., :2])
    assert np.array_equal(scores, expected[..., 2])


def test_ten_best_persons_of_a_crowd_are_kept(tmp_path):
    frame = np.repeat([1, 3, 5], [34, 3, 12])
    item = annotation("crowd", frame)
    keypoint = poses(len(frame))
    one_file_a_clip(tmp_path / "files", {"crowd": keypoint})
    source = KineticsSource(index_file(tmp_path, [item]), tmp_path / "files")
    assert_read(source, [item], {"crowd": keypoint})
    total = source[0].score.astype(np.float64).sum(2)
    assert total.shape == (10, 3)
    assert (np.diff(total, axis=0) <= 0).all()
    assert np.isclose(total[:, 0].min(), np.sort(keypoint[:34, :, 2].sum(1, dtype=float))[-10])


def test_huge_frame_numbers_take_no_memory(tmp_path):
    item = annotation("a", (1, 1, 1))
    item["frame_inds"] = np.array([-(2**62), 5, 2**62])
    one_file_a_clip(tmp_path / "files", {"a": poses(3)})
    source = KineticsSource(index_file(tmp_path, [item]), tmp_path / "files")
    assert source[0].keypoint.shape == (1, 3, 17, 2)


# --- thresholds -----------------------------------------------------------------------------------


def test_thresholds_are_compared_in_double_precision(tmp_path):
    """0.8 in half precision is 0.7998, which is less than 0.8; 0.9 is 0.8999."""
    item = annotation("a", (1, 2, 3, 4), box=[0.8, 0.9, 0.801, 0.95])
    one_file_a_clip(tmp_path / "files", {"a": poses(4)})
    frames = {
        threshold: KineticsSource(
            index_file(tmp_path, [item]), tmp_path / "files", box_threshold=threshold
        )[0].keypoint.shape[1]
        for threshold in THRESHOLDS
    }
    assert frames == {0.5: 4, 0.6: 4, 0.7: 4, 0.8: 3, 0.9: 1}


def test_clips_with_too_few_frames_are_left_out(tmp_path):
    items = [
        annotation("half", (1, 1, 3), total_frames=4),
        annotation("full", (1, 2, 3, 4), total_frames=4),
        annotation("weak", (1, 2), box=[0.55, 0.6], total_frames=2),
        annotation("odd", (1, 2), total_frames="many"),
    ]
    one_file_a_clip(tmp_path / "files", skeletons_of(items))
    index = index_file(tmp_path, items, {"train": ["weak", "half"], "val": ["full", "odd"]})

    def left(**options):
        source = KineticsSource(index, tmp_path / "files", **options)
        names = {source.name(i) for i in range(len(source))}
        return names, source.splits, list(source.notes)

    names, splits, notes = left(box_threshold=0.7)
    assert names == {"half", "full", "odd"}  # no box of `weak` is good enough
    assert splits == {"train": ["half"], "val": ["full", "odd"]}
    assert notes == ["1 of 4 clips are left out: too few frames with a box score of 0.7 or more"]
    # malformed values are reported when the clip is read
    assert left(valid_ratio=0.5)[0] == {"half", "full", "weak", "odd"}
    assert left(valid_ratio=0.51)[0] == {"full", "weak", "odd"}
    assert left(valid_ratio=0.51)[2][0].startswith("1 of 4 clips are left out")


@pytest.mark.skipif(not SAMPLE.is_file(), reason="no ../shared/samples")
def test_published_sample_has_published_counts(tmp_path):
    """Its index has the published count of frames at each threshold; skeletons are made."""
    with SAMPLE.open("rb") as file:  # trusted
        items = pickle.load(file)["annotations"]
    skeletons = skeletons_of(items)
    one_file_a_clip(tmp_path / "files", skeletons)
    for threshold in THRESHOLDS:
        source = KineticsSource(SAMPLE, tmp_path / "files", box_threshold=threshold)
        result = {
            recording.name: recording for recording in (source[i] for i in range(len(source)))
        }
        assert {name: recording.keypoint.shape[1] for name, recording in result.items()} == {
            item["frame_dir"]: item["valid"][threshold]
            for item in items
            if item["valid"][threshold]
        }
        for item in items[:20]:
            if item["valid"][threshold]:
                recording = result[item["frame_dir"]]
                boxes = item["frame_inds"], item["box_score"]
                expected = looped(skeletons[recording.name], *boxes, threshold, 10)
                # sums of random scores have no ties, so their rounding does not matter
                assert np.array_equal(recording.keypoint, expected[..., :2])
                assert np.array_equal(recording.score, expected[..., 2])
    half = KineticsSource(SAMPLE, tmp_path / "files", valid_ratio=0.5)
    assert {half.name(i) for i in range(len(half))} == {
        item["frame_dir"] for item in items if item["valid"][0.5] / item["total_frames"] >= 0.5
    }


# --- errors ---------------------------------------------------------------------------------------


def test_missing_skeletons_are_explained(tmp_path):
    index = index_file(tmp_path, [annotation()])
    with pytest.raises(InputError, match=r"k400_kpfiles_2d\.zip.*pass source\.skeletons=FOLDER"):
        KineticsSource(index)
    with pytest.raises(InputError, match=r"gone: no such folder"):
        KineticsSource(index, tmp_path / "gone")
    with pytest.raises(InputError, match=r"k400\.pkl: no such folder"):
        KineticsSource(index, index)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: no \.pkl files"):
        KineticsSource(index, tmp_path / "empty")
    save(tmp_path / "other" / "z.pkl", {})
    with pytest.raises(InputError, match=r"none of its 1 \.pkl files.*expected e\.g\. clip\.pkl"):
        KineticsSource(index, tmp_path / "other")
    os.symlink(tmp_path / "nowhere", tmp_path / "other" / "clip.pkl")
    with pytest.raises(InputError, match="a symbolic link that leads nowhere"):
        KineticsSource(index, tmp_path / "other")


def test_pickle_with_keypoints_is_refused(tmp_path):
    index = index_file(tmp_path, [{"frame_dir": "a", "label": 0, "keypoint": np.ones(1)}])
    for folder in (None, tmp_path):
        with pytest.raises(InputError, match="use source=pyskl"):
            KineticsSource(index, folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"box_threshold": 0.4}, "source.box_threshold=0.4: expected a number from 0.5 to 0.9"),
        ({"box_threshold": float("nan")}, "source.box_threshold=nan"),
        ({"max_persons": 0}, "source.max_persons=0: expected a whole number from 1"),
        ({"valid_ratio": 1.5}, "source.valid_ratio=1.5: expected a number from 0 to 1"),
    ],
)
def test_options_out_of_range(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        KineticsSource(index_file(tmp_path, [annotation()]), tmp_path, **options)


WRONG = {
    "no frame_inds": ({"frame_inds": None}, {}, "'a': `frame_inds` is not a list"),
    "text": ({"frame_inds": ["x", "y", "z"]}, {}, "`frame_inds`"),
    "float frames": ({"frame_inds": [1.0, 2.0, 3.0]}, {}, "`frame_inds`"),
    "nested": ({"frame_inds": [[1], [2], [3]]}, {}, "`frame_inds`"),
    "ragged": ({"frame_inds": [[1], [2, 3]]}, {}, "'a'"),
    "huge numbers": ({"frame_inds": [2**80, 1, 2]}, {}, "`frame_inds`"),
    "no boxes": ({"box_score": None}, {}, "`box_score`"),
    "counts": ({"box_score": np.ones(2, np.float16)}, {}, "3 frame_inds, but 2 box scores"),
    "label": ({"label": "jump"}, {}, "'a' has label 'jump'"),
    "size": ({"img_shape": (0, 5)}, {}, "'a' has img_shape"),
    "no skeletons": ({}, [3], r"a\.pkl: no skeletons of clip 'a' in this file"),
    "other entry": ({}, {"a": 3}, r"a\.pkl: no skeletons of clip 'a' in this file"),
    "other clip": ({}, {"b": {"keypoint": poses(3)}}, "no skeletons of clip 'a' in this file"),
    "fewer": ({}, {"keypoint": poses(2)}, "'a' has 2 skeletons, but 3 in the index"),
    "flat": ({}, {"keypoint": poses(3)[:, 0]}, r"keypoints of shape \(3, 3\)"),
    "two channels": ({}, {"keypoint": poses(3)[..., :2]}, r"keypoints of shape \(3, 17, 2\)"),
    "texts": ({}, {"keypoint": np.full((3, 17, 3), "x")}, "type <U1, expected numbers"),
    "ragged poses": ({}, {"keypoint": [[1], [2, 3], 4]}, "ragged"),
    "joints": ({}, {"keypoint": poses(3)[:, :5]}, "it has 5 joints"),
    "nan": ({}, {"keypoint": np.full((3, 17, 3), np.nan)}, "NaN or infinite"),
    "overflow": ({}, {"keypoint": np.full((3, 17, 3), 1e300)}, "NaN or infinite"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_malformed_clip_is_refused_in_one_line(tmp_path, mistake):
    changes, content, message = WRONG[mistake]
    item = {**annotation("a"), **changes}
    good = annotation("b")
    save(tmp_path / "files" / "b.pkl", {"keypoint": poses(3)})
    save(tmp_path / "files" / "a.pkl", content or {"keypoint": poses(3)})
    index = index_file(tmp_path, [item, good])
    source = KineticsSource(index, tmp_path / "files")
    recordings = (source[i] for i in range(len(source)))
    with pytest.raises(InputError, match=message) as caught:
        write_store(tmp_path / "s.h5", recordings, skeleton=SKELETONS["coco17"], splits={})
    assert "\n" not in str(caught.value)
    assert source[1].name == "b"


def test_clip_without_file_is_refused(tmp_path):
    items = [annotation("a", file="kp/7.pkl"), annotation("b"), annotation("c")]
    one_file_a_clip(tmp_path / "files", {"c": poses(3)})
    source = KineticsSource(index_file(tmp_path, items), tmp_path / "files")
    with pytest.raises(InputError, match=r"no skeletons of clip 'a'; expected a\.pkl or 'kp/7"):
        source[0]
    with pytest.raises(InputError, match=r"no skeletons of clip 'b'; expected b\.pkl$"):
        source[1]
    assert source[2].name == "c"


def test_clip_names_cannot_leave_the_folder(tmp_path):
    save(tmp_path / "secret.pkl", {"keypoint": poses(3)})
    save(tmp_path / "files" / "b.pkl", {"keypoint": poses(3)})
    items = [annotation("../secret"), annotation(str(tmp_path / "secret")), annotation("b")]
    source = KineticsSource(index_file(tmp_path, items), tmp_path / "files")
    for i in range(2):
        with pytest.raises(InputError, match="no skeletons of clip"):
            source[i]

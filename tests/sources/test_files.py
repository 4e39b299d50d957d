import os

import pytest

from maskclr_pl.reading import read_json
from maskclr_pl.sources.ctrgcn import CtrGcnSource
from maskclr_pl.sources.io.files import file_hash, files_under, listing_hash
from maskclr_pl.sources.io.pickles import load_pickle
from maskclr_pl.sources.poses.labels import read_labels
from maskclr_pl.sources.poses.video import read_poses
from maskclr_pl.sources.stgcn import StgcnJsonSource
from maskclr_pl.types import InputError, printable


def test_symlink_loops_are_not_followed(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.json").write_text("{}")
    (tmp_path / "sub" / "up").symlink_to("..")
    assert files_under(tmp_path, ".json") == [tmp_path / "sub" / "a.json"]
    (tmp_path / "b.json").symlink_to("b.json")
    with pytest.raises(InputError, match=r"b\.json: .*link that leads nowhere"):
        listing_hash(files_under(tmp_path, ".json"))
    with pytest.raises(InputError, match=r"b\.json: no such file"):
        files_under(tmp_path / "b.json", ".json")


@pytest.mark.parametrize(
    "read", [file_hash, read_json, read_labels, load_pickle, CtrGcnSource, read_poses]
)
def test_pipe_is_refused(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="pipe: a pipe or a device"):
        read(tmp_path / "pipe")


def test_pipe_in_folder_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "a.json").write_text('{"people": []}')
    with pytest.raises(InputError, match=r"pipe\.json: a pipe or a device"):
        read_poses(tmp_path)  # a folder with a file for each image
    (tmp_path / "b.json").symlink_to("pipe.json")
    with pytest.raises(InputError, match=r"b\.json: not a file"):
        StgcnJsonSource(tmp_path)


@pytest.mark.parametrize("name", ["x" * 300, "y/" * 3000, "a\0b"])
def test_invalid_file_names_are_refused(name):
    with pytest.raises(InputError, match="no such file or folder"):
        files_under(name, ".json")


def test_undecodable_file_names_are_read(tmp_path):
    """File names are bytes and need not be UTF-8."""
    for name in (b"caf\xe9.json", b"a\nb.json", b"\xe9.JSON"):
        (tmp_path / os.fsdecode(name)).write_text("{")
    result = files_under(tmp_path, ".json")
    assert len(result) == 3
    before = listing_hash(result)
    (tmp_path / os.fsdecode(b"caf\xe9.json")).rename(tmp_path / os.fsdecode(b"caf\xe8.json"))
    assert listing_hash(files_under(tmp_path, ".json")) != before
    for file in files_under(tmp_path, ".json"):
        with pytest.raises(InputError) as caught:
            read_json(file)
        assert len(str(caught.value).splitlines()) == 1
        str(caught.value).encode()  # as a terminal does


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("as it is: é, 日本, \u00a0", None),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x1b[31m\x00", r"\x1b[31m\x00"),
        ("\x85\u2028\u2029", r"\x85\u2028\u2029"),
        ("\udce9\ud800", r"\udce9\ud800"),
    ],
)
def test_error_is_one_line(text, line):
    assert str(InputError(text)) == printable(text) == (text if line is None else line)


@pytest.mark.parametrize("text", ["x" * 10_000, "\n" * 10_000, "\ud800" * 700])
def test_long_error_is_shortened_in_the_middle(text):
    shown = str(InputError(f"first {text} last"))
    assert len(shown) < 1000
    assert shown.startswith("first ")
    assert " ... " in shown
    assert shown.endswith(" last")

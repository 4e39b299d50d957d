import json
import subprocess

import pytest
import torch

from maskclr_pl.runs import environment as module
from maskclr_pl.runs.environment import (
    collect_environment,
    read_environment,
    shorten_home,
    write_environment,
)
from tests.helpers.protocol_tools import toy_data, toy_store


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    data = toy_data(toy_store(tmp_path_factory.mktemp("environment")))
    return collect_environment(data, torch.device("cpu"), 2, ["python", "-m", "maskclr_pl.train"])


def test_what_is_kept(found):
    assert found["packages"]["torch"] == torch.__version__
    assert found["device"].startswith("cpu")
    assert found["devices"] == 2
    assert found["cuda"] is None
    data = found["data"]
    assert data["classes"] == ["a", "b", "c"]
    parts = (data[f"{part}_clips"] for part in ("train", "validation", "test"))
    assert sum(parts) == data["clips"] == 36
    json.dumps(found)


def test_the_hash_is_of_poses_and_labels(tmp_path, found):
    for name in ("same", "other"):
        (tmp_path / name).mkdir()
    same = toy_data(toy_store(tmp_path / "same"))
    other = toy_data(toy_store(tmp_path / "other", clips=30))
    hashes = [
        collect_environment(data, torch.device("cpu"), 1, [])["data"]["poses_sha256"]
        for data in (same, other)
    ]
    assert hashes[0] == found["data"]["poses_sha256"] != hashes[1]


def test_no_name_of_a_user(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/home/jane")
    assert shorten_home("data.path=/home/jane/x.h5") == "data.path=~/x.h5"
    monkeypatch.setenv("HOME", "/")
    assert shorten_home("/data/x.h5") == "/data/x.h5"


def test_a_continued_run_keeps_where_it_began(tmp_path, found):
    write_environment(tmp_path, found)
    for python in ("3.12.1", "3.13.0"):
        write_environment(tmp_path, {**found, "python": python})
    kept = read_environment(tmp_path)
    assert kept["python"] == found["python"]
    assert [later["python"] for later in kept["continued"]] == ["3.12.1", "3.13.0"]


def test_files_that_cannot_be_read(tmp_path):
    assert read_environment(tmp_path) == {}
    for text in ("{", "[]", "\x00"):
        (tmp_path / "environment.json").write_text(text)
        assert read_environment(tmp_path) == {}


def test_commit_of_a_checkout(tmp_path):
    assert module._commit(tmp_path) is None
    (tmp_path / ".git").mkdir()
    assert module._commit(tmp_path) is None  # nothing that git knows
    (tmp_path / ".git").rmdir()
    name = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    (tmp_path / "file").write_text("1")
    for words in (["init", "-q"], ["add", "."], [*name, "commit", "-q", "-m", "x"]):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True, capture_output=True)
    clean = module._commit(tmp_path)
    assert len(clean) == 40
    (tmp_path / "file").write_text("2")
    assert module._commit(tmp_path) == f"{clean}, with uncommitted changes"


def test_without_git(tmp_path, monkeypatch):
    (tmp_path / ".git").mkdir()
    monkeypatch.setenv("PATH", "")
    assert module._commit(tmp_path) is None

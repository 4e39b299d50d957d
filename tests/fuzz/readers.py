"""Fuzzing of all readers: each damaged file must be read, or refused in one line.

`python -m tests.fuzz.readers [COUNT] [SEED] [FIRST] [KIND ...]` tries the damages number FIRST,
FIRST + 1, ... A number always gives the same damage, so that a failure can be reproduced.
"""

import atexit
import faulthandler
import json
import logging
import os
import resource
import shutil
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np

from maskclr_pl.cli.errors import USER_ERRORS, error_line
from maskclr_pl.data import Store
from maskclr_pl.inspection.summary import find_problems, inspect_store, summary_lines
from maskclr_pl.skeletons.skeleton import SKELETONS
from maskclr_pl.sources.convert import convert
from maskclr_pl.sources.ntu import protocols as ntu
from maskclr_pl.types import InputError
from tests.fuzz.commands import command_samples
from tests.fuzz.mutations import mutate
from tests.fuzz.samples import Sample, samples
from tests.helpers.commands import toy_commands

SECONDS = 60
"""Time limit for a small file, generous enough for a busy machine."""
GROWTH = 400
"""Megabytes of memory that a small file may use."""
MEMORY = 6
"""Gigabytes of address space, so that a failure does not bring down the machine."""
LONGEST = 1000
"""Most characters of an error message."""
GOOD = ("read", "in part", "refused")


Files = dict[Path, bytes]
ValidFiles = dict[str, list[tuple[Sample, Files]]]


class Outcome(NamedTuple):
    """Result of reading a damaged sample."""

    number: int
    sample: str
    result: str
    """`read`, `in part` (without some recordings), `refused`, or a failure."""
    damage: str = ""
    detail: str = ""

    @property
    def is_expected(self) -> bool:
        """Check that it is not a failure."""
        return self.result in GOOD


def outcomes(
    numbers: Sequence[int], seed: int, toy: Path, kinds: Sequence[str] = ()
) -> Iterator[Outcome]:
    """Damage and read samples, in a child process since they may crash it.

    Args:
        numbers: Numbers of the damages.
        seed: Seed of all damages.
        toy: Folder with `poses.h5` and `run`, trained on it.
        kinds: Keys of the samples; by default all.
    """
    with tempfile.TemporaryDirectory() as folder:
        valid = _valid_files(Path(folder), {**samples(), **command_samples(toy)})
        valid = {kind: forms for kind, forms in valid.items() if not kinds or kind in kinds}
        done = 0
        while done < len(numbers):
            reader, writer = os.pipe()
            child = os.fork()
            if not child:
                os.close(reader)
                _child(Path(folder), writer, numbers[done:], seed, valid)
            os.close(writer)
            with os.fdopen(reader) as stream:
                for line in stream:
                    done += 1
                    yield Outcome(*json.loads(line))
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            if done < len(numbers):
                name = _select(numbers[done], valid)[0].name
                yield Outcome(numbers[done], name, f"the process ended, {status}")
                done += 1


def _valid_files(folder: Path, known: dict[str, list[Sample]]) -> ValidFiles:
    """Return the samples of each source, with their valid files."""
    valid: ValidFiles = {}
    for source, forms in known.items():
        for sample in forms:
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                root = Path(scratch)
                sample.make(root)
                paths = sorted(path for path in root.rglob("*") if path.is_file())
                files = {path.relative_to(root): path.read_bytes() for path in paths}
            valid.setdefault(source, []).append((sample, files))
    return valid


def _select(number: int, valid: ValidFiles) -> tuple[Sample, Files]:
    """Cycle through the sources, and through the samples of each."""
    forms = list(valid.values())[number % len(valid)]
    return forms[number // len(valid) % len(forms)]


def _child(
    folder: Path,
    pipe: int,
    numbers: Sequence[int],
    seed: int,
    valid: ValidFiles,
) -> None:
    """Write one outcome per line, and exit without the cleanup of the parent."""
    status = 1
    try:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY << 30, MEMORY << 30))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        logging.disable(logging.ERROR)
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ResourceWarning)  # files closed by the garbage collector
        with os.fdopen(pipe, "w", buffering=1) as stream:
            for number in numbers:
                faulthandler.dump_traceback_later(SECONDS, exit=True)
                with tempfile.TemporaryDirectory(dir=folder) as scratch:
                    outcome = _run_sample(number, *_select(number, valid), Path(scratch), seed)
                faulthandler.cancel_dump_traceback_later()
                stream.write(json.dumps(outcome) + "\n")
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _run_sample(number: int, sample: Sample, files: Files, scratch: Path, seed: int) -> Outcome:
    root = scratch / "files"
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    damage = mutate(root, Random(f"{seed} {number}"))
    before = _peak()
    try:
        result, detail = read(sample, root, scratch / "out")
    except Exception as error:
        result, detail = type(error).__name__, traceback.format_exc()
    if list(root.rglob("RAN")):
        result = "code was run"
    elif _peak() - before > GROWTH:
        result = f"{_peak() - before:.0f} MB of memory"
    return Outcome(number, sample.name, result, damage, detail)


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def read(sample: Sample, root: Path, output: Path) -> tuple[str, str]:
    """Read a sample like the commands: return one of `GOOD` and the error, or raise."""
    if sample.use is not None:
        output.mkdir()
        try:
            sample.use(root, output)
        except USER_ERRORS as error:
            return "refused", _line(error_line(error, "train"))
        return "read", ""
    try:
        if sample.read is None:
            read_store(Store(root / "s.h5"))
            return "read", ""
        source = sample.read(root)
        names = [source.name(i) for i in range(len(source))]
        ntu.compare_splits(source.splits, names)
        splits = {**ntu.protocol_splits(names), **source.splits} or {"all": names}
    except InputError as error:
        return "refused", _line(error)
    reason = ""
    for on_error, result in (("stop", "read"), ("skip", "in part")):
        try:
            store = convert(
                source,
                output,
                skeleton=SKELETONS[sample.skeleton],
                splits=splits,
                class_names=source.class_names,
                on_error=on_error,  # type: ignore[arg-type]
            )
        except InputError as error:
            reason = _line(error)
        else:
            read_store(store)
            return result, reason
    return "refused", reason


def _line(error: InputError | str) -> str:
    text = str(error)
    assert len(text.splitlines()) == 1, f"not one line: {text!r}"
    assert len(text) <= LONGEST, f"{len(text)} characters: {text[:LONGEST]}"
    return text


def read_store(store: Store) -> None:
    """Read all recordings and the summary of a store."""
    for i in range(len(store)):
        recording = store.recording(i)
        persons, frames, joints, channels = recording.keypoint.shape
        assert (joints, channels) in ((len(store.skeleton), 2), (len(store.skeleton), 3))
        assert recording.score is None or recording.score.shape == (persons, frames, joints)
        np.isfinite(recording.keypoint).all()
    found = inspect_store(store)
    assert len("\n".join([*summary_lines(found, full=True), *find_problems(found)])) > 0


def _toy() -> Path:
    """Train a small model, whose folder is removed when the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="maskclr-fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    toy_commands(folder, "backbone.dim=16", "backbone.rep_dim=16", "backbone.depth=1")
    return folder


def main() -> None:
    """Count the outcomes and print the failures."""
    numbers = [int(word) for word in sys.argv[1:] if word.isdigit()]
    kinds = [word for word in sys.argv[1:] if not word.isdigit()]
    count, seed, first = [*numbers, *(20_000, 0, 0)[len(numbers) :]]
    table: Counter[tuple[str, str]] = Counter()
    for outcome in outcomes(range(first, first + count), seed, _toy(), kinds):
        table[outcome.sample.split()[0], outcome.result if outcome.is_expected else "wrong"] += 1
        if not outcome.is_expected or count == 1:
            number, sample, result, damage, detail = outcome
            sys.stdout.write(f"{number}  {sample}: {result} ({damage})\n{detail}\n")
    for name in sorted({name for name, _ in table}):
        results = (f"{table[name, result]:6} {result}" for result in (*GOOD, "wrong"))
        sys.stdout.write(f"{name:14} {' '.join(results)}\n")
    wrong = sum(number for (_, result), number in table.items() if result == "wrong")
    if wrong:
        sys.exit(
            f"{wrong} of {count} failed; to reproduce one: python -m tests.fuzz.readers 1 {seed} N"
        )
    sys.stdout.write(f"{count} damaged files: each was read, or refused in one line\n")


if __name__ == "__main__":
    main()

"""Commands that are killed or run out of disk, continued, and compared with those that were not.

python -m tests.faults.campaign [--seed 0] [--only NAME] [--output FOLDER]

`make faults`. Commands run in processes of their own, as users type them. A case is one fault: a
SIGKILL of the command and its workers at a random moment, a SIGKILL at a chosen operation on a
file, or a disk that is full from an operation on. Then the command is continued: by `resume=` if it
is a training that left a run, otherwise by typing it again. What came of it:

    identical   the files are those of a command that nothing happened to
    different   they are whole, but others
    lost        something is gone that was there: epochs of metrics.csv, an earlier table
    stuck       the command cannot be brought to its end, or hangs
    traceback   some output had one, or the fault did not end in one line

The table is printed, and written with the outputs of all cases that are not identical.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.faults.jobs import JOBS, Content, Job, files
from tests.helpers.commands import pyskl_file

LIMIT = 240  # seconds until a command counts as one that hangs
OUTCOMES = ("identical", "different", "lost", "stuck", "traceback")


@dataclass(frozen=True)
class Fault:
    """What happens to a command: after `at` (a share of its time, or of its operations)."""

    job: str
    kind: str
    at: float


class Command:
    """A command of the package in a process group of its own."""

    def __init__(
        self, job: Job, folder: Path, fault: Sequence[str] = (), again: Sequence[str] = ()
    ):
        words = list(again or job.words)
        module = f"maskclr_pl.{job.verb}"
        tool = ["-m", "tests.faults.tool", *fault, module] if fault else ["-m", module]
        paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **job.environment}
        environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        self.output = folder.with_name(f"{folder.name}.txt")
        with self.output.open("a") as output:
            output.write(f"$ {module} {' '.join(words)} {' '.join(fault)}\n")
            output.flush()
            self.process = subprocess.Popen(
                [sys.executable, *tool, *words],
                cwd=folder,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def wait(self, seconds: float = LIMIT) -> int | None:
        """The exit status; None if it had to be killed."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            return None

    def kill(self) -> None:
        """SIGKILL to the process and all that it has started."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self.process.wait()


@dataclass(frozen=True)
class Whole:
    """A job that nothing happened to."""

    content: Content
    seconds: float
    operations: int


class Campaign:
    """All cases, in a folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.whole: dict[str, Whole] = {}

    def prepare(self) -> None:
        """What the jobs begin with: a pickle, its store, a run, a run with a table."""
        place = self.folder / "start"
        place.mkdir(parents=True)
        pyskl_file(place / "poses.pkl", clips=48)
        words = ["source=pyskl", "input=poses.pkl", "output=poses.h5", "skeleton=coco17"]
        self._must(Job("prepare", words, files("poses.h5")), place)
        self._must(JOBS["train"], place)
        evaluated = self.folder / "evaluated"
        shutil.copytree(place, evaluated)
        self._must(
            Job("evaluate", ["ckpt_path=run", "corruption=none", "device=cpu"], dict), evaluated
        )

    @staticmethod
    def _must(job: Job, folder: Path) -> None:
        command = Command(job, folder)
        if command.wait() != 0:
            sys.exit(f"{command.output.read_text()}\nerror: a command failed without a fault")

    def _begin(self, name: str, job: str) -> Path:
        place = self.folder / name.replace(" ", "_").replace(",", "")
        source = self.folder / ("evaluated" if "robustness" in JOBS[job].start else "start")
        shutil.copytree(source, place)
        if "run" not in JOBS[job].start:
            shutil.rmtree(place / "run")
        return place

    def unbroken(self, name: str) -> None:
        """Run a job without a fault, counting its operations."""
        place, job = self._begin(f"whole {name}", name), JOBS[name]
        began = time.monotonic()
        command = Command(job, place, [str(place), "count", "0"])
        if command.wait() != 0:
            sys.exit(f"{command.output.read_text()}\nerror: {name} failed without a fault")
        seconds = time.monotonic() - began
        counted = command.output.read_text().rpartition("operations: ")[2].split()[0]
        self.whole[name] = Whole(job.content(place), seconds, int(counted))

    def outcome(self, number: int, fault: Fault) -> str:
        """Let a fault happen, continue, compare."""
        job, whole = JOBS[fault.job], self.whole[fault.job]
        place = self._begin(f"{number:03d} {fault.job} {fault.kind}", fault.job)
        table = place / "run/robustness.csv"
        before = table.read_bytes() if table.is_file() else None
        at = str(1 + int(fault.at * whole.operations))
        if fault.kind == "moment":
            command = Command(job, place)
            status = command.wait(fault.at * whole.seconds)
        else:
            command = Command(
                job, place, [str(place), "kill" if fault.kind == "write" else "full", at]
            )
            status = command.wait()
        output = command.output
        found = "stuck"
        if fault.kind == "full" and not _one_line(status, output.read_text()):
            found = "traceback"
        elif before is not None and not (
            table.is_file() and len(table.read_bytes()) >= len(before)
        ):
            found = "lost"
        elif self._finish(job, place):
            found = _compared(whole.content, job, place)
        if "Traceback (most recent call last)" in output.read_text():
            found = "traceback"
        if found == "identical":
            shutil.rmtree(place)
            output.unlink()
        return found

    @staticmethod
    def _finish(job: Job, place: Path) -> bool:
        """Bring a command to its end, as its own messages say."""
        ways: list[Sequence[str]] = [job.words]
        if job.verb == "train" and "resume=run" not in job.words:
            ways.insert(0, ["resume=run"])
        for words in ways:
            command = Command(job, place, again=words)
            if command.wait() == 0:
                return True
        # killed when all was done: the result is there, and is not overwritten
        last = command.output.read_text().rpartition("$ ")[2]
        return job.verb != "train" and " already; " in last


def _one_line(status: int | None, output: str) -> bool:
    """Whether a command with a full disk ended well, or in one line."""
    lines = [line for line in output.splitlines() if line.startswith("error: ")]
    return status == 0 or (status == 2 and len(lines) == 1)


def _compared(whole: Content, job: Job, place: Path) -> str:
    try:
        content = job.content(place)
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        print(f"{place}: {error!r}", file=sys.stderr)
        return "lost"
    if whole.keys() - content.keys():
        return "lost"
    return "identical" if content == whole else "different"


def faults(seed: int, only: str) -> list[Fault]:
    """Those to try, in a random order."""
    draw = random.Random(seed)
    cases = [
        Fault(name, kind, draw.random())
        for name, job in JOBS.items()
        if only in name
        for kind, count in zip(("moment", "write", "full"), job.faults, strict=True)
        for _ in range(count)
    ]
    draw.shuffle(cases)
    return cases


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="jobs whose name has this in it")
    parser.add_argument("--output", type=Path, help="a new folder")
    args = parser.parse_args()
    folder = args.output or Path(tempfile.mkdtemp(prefix="faults_"))
    began, cases = time.monotonic(), faults(args.seed, args.only)
    campaign = Campaign(folder)
    campaign.prepare()
    print(f"{len(cases)} faults, seed {args.seed}, in {folder}", flush=True)
    counts = {name: dict.fromkeys(OUTCOMES, 0) for name in JOBS if args.only in name}
    lock = threading.Lock()

    def one(number: int, fault: Fault) -> None:
        found = campaign.outcome(number, fault)
        with lock:
            counts[fault.job][found] += 1
            print(f"{number:03d}  {fault.job}, {fault.kind} {fault.at:.3f}: {found}", flush=True)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(campaign.unbroken, counts))
        list(pool.map(one, range(len(cases)), cases))
    lines = [f"| {'command':<24} | tried | {' | '.join(OUTCOMES)} |", f"|{' --- |' * 7}"]
    total = dict.fromkeys(OUTCOMES, 0)
    for name, found in counts.items():
        lines.append(_row(name, found))
        total = {key: total[key] + found[key] for key in OUTCOMES}
    lines.append(_row("all", total))
    text = "\n".join(lines)
    (folder / "table.md").write_text(text + "\n")
    print(f"{text}\n{time.monotonic() - began:.0f} s   {folder / 'table.md'}")
    return int(total["identical"] < len(cases))


def _row(name: str, found: Mapping[str, int]) -> str:
    values = [sum(found.values()), *(found[key] for key in OUTCOMES)]
    return f"| {name:<24} | {' | '.join(map(str, values))} |"


if __name__ == "__main__":
    sys.exit(main())

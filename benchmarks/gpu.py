"""The first minutes on a GPU: what must work there, and what it costs.

`make gpu [PART=NAME]`, or `python -m benchmarks.gpu [--part NAME] [--output FOLDER]`.
Parts: smoke, run, memory, compile, bench (see `gpu_parts`), each in a process of its own, which is
ended when its time is over; together at most eight minutes on an H100 or H200. The results are in
FOLDER/gpu.json and, as tables, in FOLDER/gpu.md; a part that is run again replaces its own alone.
Synthetic poses only, no network, the torch that is installed.

It has not been run on a GPU yet; `--device cpu --tiny` runs the same code, as the tests do.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

BUDGETS = {"smoke": 110, "run": 90, "memory": 90, "compile": 80, "bench": 100}
"""Part -> seconds; their sum is less than eight minutes."""


def main(words: Sequence[str]) -> int:
    """See the module; 0 if everything that was run is in order, 2 without a GPU."""
    parser = argparse.ArgumentParser(prog="make gpu", description="checks and figures of a GPU")
    parser.add_argument("--part", choices=[*BUDGETS, "all"], default="all")
    parser.add_argument("--output", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="sizes for a test on a CPU")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(words)
    if given.device == "cuda" and not torch.cuda.is_available():
        sys.stderr.write(
            f"error: no GPU: torch {torch.__version__} sees no CUDA device here; run make gpu on a "
            "machine with an NVIDIA GPU and a CUDA build of torch\n"
        )
        return 2
    given.output.mkdir(parents=True, exist_ok=True)
    if given.alone:
        from benchmarks import gpu_parts

        rows = gpu_parts.PARTS[given.part](
            torch.device(given.device), given.tiny, time.monotonic() + 0.9 * BUDGETS[given.part]
        )
        (given.output / f"{given.part}.json").write_text(json.dumps(rows), encoding="utf-8")
        return 0
    results = known(given.output)
    results["machine"] = machine(given.device)
    for part in BUDGETS if given.part == "all" else [given.part]:
        results["parts"][part] = run_part(part, words, given.output)
        write(given.output, results)  # after each part: what was measured stays
    sys.stdout.write(f"{tables(results)}\n{given.output / 'gpu.md'}\n")
    return int(any(row["state"] == "failed" for one in results["parts"].values() for row in one))


def run_part(part: str, words: Sequence[str], folder: Path) -> list[dict[str, Any]]:
    """The rows of a part, from a process of its own; one row that says why there are none."""
    sys.stdout.write(f"{part} (at most {BUDGETS[part]} s)\n")
    sys.stdout.flush()
    file = folder / f"{part}.json"
    file.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks.gpu", *words, "--part", part, "--alone"]
    began = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=BUDGETS[part])
        problem = "" if done.returncode == 0 else (done.stderr.strip() or "no message")[-400:]
    except subprocess.TimeoutExpired:
        problem = f"not done after {BUDGETS[part]} s"
    sys.stdout.write(f"  {time.monotonic() - began:.0f} s {problem}\n")
    if problem or not file.is_file():
        return [{"what": part, "state": "failed", "why": problem or "no results"}]
    rows: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
    file.unlink()
    return rows


def known(folder: Path) -> dict[str, Any]:
    """Results of an earlier run, whose other parts stay."""
    try:
        found = json.loads((folder / "gpu.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {"parts": {}}
    return found if "parts" in found else {"parts": {}}


def machine(device: str) -> dict[str, Any]:
    """What the figures are of."""
    found: dict[str, Any] = {"torch": torch.__version__, "device": device}
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found |= {"device": properties.name, "memory_gb": round(properties.total_memory / 1e9, 1)}
        found["cuda"] = torch.version.cuda
    return found


def write(folder: Path, results: Mapping[str, Any]) -> None:
    """gpu.json and gpu.md."""
    text = json.dumps(results, indent=1)
    (folder / "gpu.json").write_text(text + "\n", encoding="utf-8")
    (folder / "gpu.md").write_text(tables(results), encoding="utf-8")


def tables(results: Mapping[str, Any]) -> str:
    """Markdown: a line about the machine, a table for each part."""
    about = ", ".join(f"{key} {value}" for key, value in results["machine"].items())
    blocks = [f"# GPU\n\n{about}\n"]
    for part, rows in results["parts"].items():
        good = sum(row["state"] == "ok" for row in rows)
        blocks.append(f"## {part}: {good} of {len(rows)} in order\n")
        shown = rows
        if part == "smoke":  # many, and of no interest unless they fail
            shown = [row for row in rows if row["state"] != "ok"]
        if shown:
            blocks.append(table(shown))
    return "\n".join(blocks)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table of rows that may have different columns."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [names, ["---"] * len(names)]
    lines += [[cell(row.get(name, "")) for name in names] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def cell(value: Any) -> str:
    """A value as a cell: short, on one line."""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return " ".join(text.replace("|", "/").split())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

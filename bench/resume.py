"""Kill a fit with SIGKILL at random moments: each rerun must complete with the same bytes of scores.

    python bench/resume.py [--kills 20] [--shape tweets] [--rows 800] [--seed 0] [--set KEY=VALUE ...] [--out JSON]

A network, with a checkpoint after every step: --set model.family=feedforward --set training.checkpoint_minutes=0
A decoder's adapter: --set model.family=decoder --set model.backbone=FOLDER --set "model.adapter={rank: 4}"

Exits with 1 if a rerun fails or a byte differs.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fivefold.data.demo import write_demo

COMPARED = ("scores/oof.parquet", "decision/rule.json", "decision/metrics.json", "predictions/scores.parquet")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--shape", default="tweets")
    parser.add_argument("--rows", type=int, default=800)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="of the recipe, as in fivefold fit"
    )
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = run_kills(Path(folder), options)
    same = sum(result["same"] for result in results)
    if options.out:
        options.out.write_text(json.dumps(results, indent=1) + "\n")
    print(f"{len(results)} kills that landed: {same} reruns completed with the same bytes of scores")
    return 0 if same == len(results) == options.kills else 1


def run_kills(folder: Path, options: argparse.Namespace) -> list[dict[str, float | bool]]:
    """An undisturbed fit, then one killed and continued fit for each moment."""
    files = write_demo(options.shape, folder / "data", options.rows)
    command = [sys.executable, "-m", "fivefold.cli", "fit", str(files["train"]), "--set", f"data.test={files['test']}"]
    command += [part for change in options.set for part in ("--set", change)]
    start = time.perf_counter()
    subprocess.run([*command, "--out", str(folder / "whole")], check=True, capture_output=True)
    whole = time.perf_counter() - start
    moments = random.Random(options.seed)
    results: list[dict[str, float | bool]] = []
    tried = 0
    while len(results) < options.kills and tried < 5 * options.kills:
        tried += 1
        out = folder / f"run{tried}"
        moment = moments.uniform(0.05, 1.0) * whole
        if not kill_after([*command, "--out", str(out)], moment):
            continue  # it had finished: no kill
        again = subprocess.run([*command, "--out", str(out)], capture_output=True, text=True)
        same = again.returncode == 0 and contents(out) == contents(folder / "whole")
        results.append({"moment": round(moment, 2), "same": same})
        said = "same" if same else again.stderr
        print(f"{len(results):3} killed after {moment:5.1f} of {whole:.1f} s: {said}", flush=True)
    return results


def kill_after(command: list[str], moment: float) -> bool:
    """Start the command and kill it after `moment` seconds; whether it was still running."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(moment)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return True
    return False


def contents(run: Path) -> dict[str, bytes]:
    """The files that must not differ, and the scores of every fold."""
    files = [run / name for name in COMPARED] + sorted(run.glob("folds/*/held_out.parquet"))
    return {str(path.relative_to(run)): path.read_bytes() for path in files}


if __name__ == "__main__":
    sys.exit(main())

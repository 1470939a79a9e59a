"""Linear models run where the extra `neural` isn't installed, and networks say what to install."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys

class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "transformers", "accelerate", "tokenizers"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Nowhere())
from fivefold.cli import main

quick = ["--set", "folds.count=2"]
codes = [
    main(["fit", "demo://topics", "--out", "linear", "--set", "model.char_ngrams=null", *quick]),
    main(["predict", "linear", "demo://topics", "--out", "predictions.csv"]),
    main(["fit", "demo://tweets", "--out", "words", "--set", "model.family=feedforward", *quick]),
    main(["fit", "demo://tweets", "--out", "both", "--preset", "balanced"]),
    main(["fit", "demo://topics", "--out", "near", "--set", "enrichment.neighbours=3", *quick]),
    main(["pretrain", "demo://tweets", "--out", "backbone", "--set", "model.family=encoder"]),
]
print(codes)
"""


def test_linear_models_need_no_torch_and_networks_say_what_they_need(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[0, 0, 2, 2, 2, 2]"
    assert done.stderr.count("needs the package 'torch', which isn't installed.") == 4
    assert done.stderr.count("pip install 'fivefold[neural]'") == 3
    assert done.stderr.count("pip install 'fivefold[enrich]'") == 1
    assert "Traceback" not in done.stderr

"""The pinned commands, and how what they leave is compared."""

import csv
import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RECORD = HERE / "record"
DATA = [
    "data=phantom",
    "data.root=phantom",
    "data.patients=40",
    "data.images_per_patient=2",
    "data.film_px=64",
    "data.image_px=48",
    "data.batch_size=8",
    "data.num_workers=0",
]
NETWORK = [
    "backbone=lite0",
    "backbone.name=test_efficientnet",
    "backbone.weights=none",
    "head.width=31",
    "head.norm_momentum=0.1",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=2",
    "trainer.log_every_n_steps=2",
    "diagnostics.every_n_steps=2",
    "logger=csv",
]
HEADS = ["activations=[relu,gelu]", "seeds=2", "report=false", "backbone.frozen=true"]
COMMANDS = {
    "train": [*DATA, *NETWORK, "run.progress=quiet", "run.dir=run"],
    "ablate": [*DATA, *NETWORK, *HEADS, "run.dir=ablation"],
}
RUNS = ("run", *(f"ablation/heads/{a}-s{s}" for a in ("relu", "gelu", "identity") for s in (1, 2)))
FILES = ("metrics.csv", "result.json", "predictions/val.csv", "predictions/test.csv")
# Times, words, and an interval that depends on the random draws of its bootstrap.
TIMES = ("fit_s", "total_s", "time_s", "seconds")
NOT_PINNED = (*TIMES, "postmortem", "auroc_low", "auroc_high")
# Younger than the record, which shows that all other numbers stayed what they were.
YOUNGER = ("units/start/", "start/", "grad_dormant_frac", "blackout_expected_frac")


def kept(file: Path) -> str:
    """The text of a file of a run folder without what is not pinned."""
    if file.suffix == ".json":
        return json.dumps(_without(json.loads(file.read_text())), indent=1) + "\n"
    rows = list(csv.reader(file.open(newline="")))
    columns = [i for i, name in enumerate(rows[0]) if _is_pinned(name)]
    times = [rows[0].index(name) for name in ("step", "epoch") if name in rows[0]]
    kept = [[row[i] for i in columns] for row in rows]
    # A row that holds younger numbers only leaves nothing but its time.
    return "".join(",".join(row) + "\n" for row in kept if sum(map(bool, row)) > len(times))


def _is_pinned(name: str) -> bool:
    return name not in NOT_PINNED and not any(part in name for part in YOUNGER)


def _without(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _without(part) for key, part in node.items() if _is_pinned(key)}
    return [_without(part) for part in node] if isinstance(node, list) else node


def numbers(text: str) -> tuple[list[str], list[float]]:
    """The words and the numbers of a kept file, in their order."""
    words: list[str] = []
    values: list[float] = []
    for token in text.replace(",", "\n").replace('"', "\n").replace(": ", "\n").split("\n"):
        try:
            values.append(float(token))
        except ValueError:
            words.append(token.strip())
    return words, values

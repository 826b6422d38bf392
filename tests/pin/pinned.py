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


def kept(file: Path) -> str:
    """The text of a file of a run folder without what is not pinned."""
    if file.suffix == ".json":
        return json.dumps(_without(json.loads(file.read_text())), indent=1) + "\n"
    rows = list(csv.reader(file.open(newline="")))
    columns = [i for i, name in enumerate(rows[0]) if name not in NOT_PINNED]
    return "".join(",".join(row[i] for i in columns) + "\n" for row in rows)


def _without(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _without(part) for key, part in node.items() if key not in NOT_PINNED}
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

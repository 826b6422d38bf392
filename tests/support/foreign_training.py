"""A network of another project, trained on a folder of films, and watched."""

import json

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, Dataset

from fluoroscope import watch
from fluoroscope.files.images import read_image
from fluoroscope.instrument.lightning import UnitMonitor


class Films(Dataset):
    """Images with the name of their file, as some projects have them in a batch."""

    def __init__(self, folder):
        self.paths = sorted(folder.glob("*.png"))

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, number):
        path = self.paths[number]
        image = torch.from_numpy(read_image(path)).float().view(1, 48, 48) / 255
        return {"x": image, "labels": number % 2, "name": str(path)}


class Network(pl.LightningModule):
    """Of another project, for Lightning and for Transformers."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 3, 5), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2))
        self.body(torch.zeros(1, 1, 48, 48))

    def forward(self, x, labels, **names):
        return {"loss": nn.functional.cross_entropy(self.body(x), labels)}

    def training_step(self, batch, index):
        return self(**batch)["loss"]

    validation_step = training_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def watch_in_lightning(place, folder):
    """Write all that a watch gives into `place/watch`; returns the names of the files."""
    logger = CSVLogger(place / "watch", "", "")
    monitor = UnitMonitor(every_n_steps=1)
    quiet = {
        "enable_progress_bar": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
    }
    trainer = pl.Trainer(max_epochs=1, logger=logger, callbacks=[monitor], **quiet)
    films = DataLoader(Films(folder), 4)
    trainer.fit(Network(), films, films)
    with watch(network := Network().eval()) as units:
        network(**next(iter(films)))
        pages = {"units.txt": units.table(), "frame.csv": units.frame().to_csv()}
        pages |= {"channels.csv": units.channels().to_csv(), "unseen.txt": str(units.unseen)}
    for name, text in pages.items():
        (place / "watch" / name).write_text(text)
    assert "units/val/body.1/dead_frac" in (place / "watch/metrics.csv").read_text()
    return ["metrics.csv", *pages]


def watch_in_transformers(place, folder):
    """Write the history of a training into `place/transformers`."""
    transformers = pytest.importorskip("transformers")
    from fluoroscope.instrument.hugging_face import UnitCallback

    args = transformers.TrainingArguments(
        output_dir=str(place / "transformers"),
        num_train_epochs=1,
        eval_strategy="epoch",
        report_to=[],
        use_cpu=True,
        save_strategy="no",
    )
    films = Films(folder)
    trainer = transformers.Trainer(Network(), args, train_dataset=films, eval_dataset=films)
    UnitCallback(every_n_steps=1).attach(trainer)
    trainer.train()
    (place / "transformers").mkdir(exist_ok=True)
    (place / "transformers/log.json").write_text(json.dumps(trainer.state.log_history))
    assert "units/eval/body.1/dead_frac" in (place / "transformers/log.json").read_text()
    return ["log.json"]

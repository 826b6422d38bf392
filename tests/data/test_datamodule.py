import itertools
from itertools import chain

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from sklearn.utils.class_weight import compute_sample_weight

from fluoroscope import build
from fluoroscope.data.datamodule import XrayDataModule
from fluoroscope.data.samplers import ShardBatches, TrainSampler, balanced_weights
from fluoroscope.errors import InputError
from fluoroscope.files.images import fit_square, read_image
from tests.support.films import config, tiny_config

SIZES = (*range(1, 40), 101, 624)
BATCHES = (1, 2, 3, 4, 7, 8, 32)
WORLDS = (1, 2, 3, 4, 8)
GRID = [grid for grid in itertools.product(SIZES, BATCHES, WORLDS) if grid[0] >= grid[2]]


def shards(size, batch_size, world_size):
    return [list(ShardBatches(size, batch_size, rank, world_size)) for rank in range(world_size)]


def test_every_image_is_in_one_shard_once():
    assert len(GRID) > 1000
    for grid in GRID:
        positions = [i for shard in shards(*grid) for batch in shard for i, _, _ in batch]
        assert sorted(positions) == list(range(grid[0])), grid


def test_shards_have_equally_many_batches_and_none_is_empty():
    for grid in GRID:
        parts, (size, batch_size, world_size) = shards(*grid), grid
        assert len({len(shard) for shard in parts}) == 1, grid
        assert len(ShardBatches(size, batch_size, 0, world_size)) == len(parts[0]), grid
        assert all(batch for shard in parts for batch in shard), grid


def test_a_batch_is_no_larger_than_asked_for_or_one_more_where_counts_must_agree():
    exceeded = set()
    for grid in GRID:
        _, batch_size, world_size = grid
        largest = max(len(batch) for shard in shards(*grid) for batch in shard)
        assert largest <= batch_size + 1, grid
        if largest > batch_size:
            exceeded.add((batch_size, world_size > 1))
    assert exceeded == {(1, True)}  # with batches of one alone, and never in a single process


def test_seven_images_for_two_processes_by_hand():
    assert list(ShardBatches(7, 2, 0, 2)) == [[(0, 0, 0), (2, 0, 0)], [(4, 0, 0), (6, 0, 0)]]
    assert list(ShardBatches(7, 2, 1, 2)) == [[(1, 0, 0), (3, 0, 0)], [(5, 0, 0)]]


def test_fewer_images_than_processes_are_refused():
    with pytest.raises(InputError, match=r"too few images to score \(2\) for 3 processes"):
        ShardBatches(2, 8, 0, 3)


def batches(draws, batch_size):
    draws = list(draws)
    assert len(draws) % batch_size == 0
    return [draws[i : i + batch_size] for i in range(0, len(draws), batch_size)]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("size", "batch_size", "world_size"), [(83, 4, 2), (50, 3, 4), (16, 8, 2)])
def test_the_processes_together_draw_the_batches_of_one(size, batch_size, world_size, weighted):
    weights = np.random.default_rng(0).random(size) if weighted else None
    one = TrainSampler(size, batch_size * world_size, 5, weights)
    many = [
        TrainSampler(size, batch_size, 5, weights, rank, world_size) for rank in range(world_size)
    ]
    for epoch in (0, 3):
        for sampler in (one, *many):
            sampler.set_epoch(epoch)
        expected = batches(one, batch_size * world_size)
        parts = [batches(sampler, batch_size) for sampler in many]
        joined = [list(chain(*together)) for together in zip(*parts, strict=True)]
        assert joined == expected
        assert [len(sampler) for sampler in many] == [len(one) // world_size] * world_size


def test_an_epoch_draws_an_image_at_most_once_and_leaves_out_others_each_time():
    sampler = TrainSampler(83, 8, seed=5)
    left_out = []
    for epoch in range(5):
        sampler.set_epoch(epoch)
        draws = list(sampler)
        assert len(draws) == len(sampler) == 80
        assert {(e, repeat) for _, e, repeat in draws} == {(epoch, 0)}
        positions = {position for position, _, _ in draws}
        assert len(positions) == 80
        left_out.append(frozenset(range(83)) - positions)
    assert len(set(left_out)) == 5


def order(seed, epoch):
    sampler = TrainSampler(83, 8, seed)
    sampler.set_epoch(epoch)
    return [position for position, _, _ in sampler]


def test_the_order_is_that_of_the_seed_and_the_epoch():
    assert order(5, 0) == order(5, 0)
    orders = [order(seed, epoch) for seed in (5, 6) for epoch in (0, 1)]
    assert len({tuple(o) for o in orders}) == 4


def test_a_split_smaller_than_the_batches_of_all_processes_is_refused():
    assert len(TrainSampler(8, 4, 0, world_size=2)) == 4
    with pytest.raises(
        InputError, match=r"data.batch_size=4 times the number of processes \(2\) .* \(7 images\)"
    ):
        TrainSampler(7, 4, 0, world_size=2)


def test_one_balanced_label_draws_both_classes_equally_often():
    target = np.repeat(np.array([[0], [1]], np.float32), [88, 12], axis=0)
    weights = balanced_weights(target)
    assert [weights[:88].sum(), weights[88:].sum()] == pytest.approx([50, 50])

    sampler = TrainSampler(100, 25, seed=5, weights=weights)
    drawn = []
    for epoch in range(100):
        sampler.set_epoch(epoch)
        drawn += [position for position, _, _ in sampler]
    # 10,000 draws with p = 1/2: 5000 of each, standard deviation 50.
    assert np.bincount(np.array(drawn) >= 88) == pytest.approx([5000] * 2, abs=4 * 50)


def test_balanced_weights_by_hand():
    unknown = np.nan
    rows = [(0, 0, 1), (0, 1, 1), (0, unknown, 1), (1, unknown, 1), (unknown, 0, 1)]
    rows += [(unknown, unknown, unknown)]
    # First label: 4 known, 3 absent, 1 present; the second: 3 known, 2 and 1; the third: one class.
    absent, present = (4 / 6, 3 / 4), (4 / 2, 3 / 2)
    expected = [
        (absent[0] + absent[1] + 1) / 3,
        (absent[0] + present[1] + 1) / 3,
        (absent[0] + 1) / 2,
        (present[0] + 1) / 2,
        (absent[1] + 1) / 2,
        1,
    ]
    assert balanced_weights(np.array(rows, np.float32)) == pytest.approx(expected)


def test_balanced_weights_of_many_labels_are_those_of_sklearn_and_no_image_fills_the_epoch():
    found = [0.103, 0.025, 0.042, 0.021, 0.119, 0.022, 0.015, 0.002]  # shares as in ChestX-ray14
    found += [0.177, 0.052, 0.056, 0.030, 0.013, 0.047]
    target = (np.random.default_rng(0).random((20_000, 14)) < found).astype(np.float32)
    weights = balanced_weights(target)
    by_label = [compute_sample_weight("balanced", column) for column in target.T]
    np.testing.assert_allclose(weights, np.mean(by_label, axis=0), rtol=1e-6)

    share = weights / weights.sum()
    _, group, count = np.unique(target, axis=0, return_inverse=True, return_counts=True)
    alone = count[group.ravel()] == 1  # 0.7 % of the images: had 40 % of the draws when all
    assert 0.005 < alone.mean() < 0.01  # combinations of labels were drawn equally often
    assert share[alone].sum() < 0.04
    assert np.sort(share)[-200:].sum() < 0.1
    assert ((share @ target) > 1.1 * target.mean(axis=0)).all()  # every finding more often


def test_an_image_that_is_drawn_again_counts_up():
    sampler = TrainSampler(10, 10, seed=5, weights=np.array([8.0, *[1] * 9]))
    draws = list(sampler)
    repeats = [repeat for position, _, repeat in draws if position == 0]
    assert repeats == list(range(len(repeats)))
    assert len(repeats) > 2
    assert len(set(draws)) == 10


LABELS = ["Effusion", "Nodule"]


@pytest.fixture(scope="module")
def table(films, tmp_path_factory):
    """A CSV of 44 films with two labels, one of which is unknown now and then."""
    rng = np.random.default_rng(3)
    paths = sorted(films.rglob("*.png"))[:88:2]
    rows = pd.DataFrame(
        {
            "path": [str(path.relative_to(films)) for path in paths],
            "who": [path.stem.split("_")[0] for path in paths],
            "Effusion": rng.integers(0, 2, len(paths)),
            "Nodule": [["1", "0", ""][i % 3] for i in range(len(paths))],
        }
    )
    file = tmp_path_factory.mktemp("table") / "own.csv"
    rows.to_csv(file, index=False)
    return file


@pytest.fixture(scope="module")
def data(films, table):
    cfg = config(
        "data=table",
        f"data.root={films}",
        f"data.csv={table}",
        "data.patient_column=who",
        f"data.labels=[{','.join(LABELS)}]",
        "data.image_px=37",
        "data.batch_size=5",
        "data.num_workers=0",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(table.parent))
        return build.build_data(cfg, build.build_studies(cfg))


def test_a_batch_is_what_its_docstring_says(data, table):
    batch = next(iter(data.train_dataloader()))
    assert {key: (part.dtype, tuple(part.shape)) for key, part in batch.items()} == {
        "image": (torch.uint8, (5, 1, 37, 37)),
        "target": (torch.float32, (5, 2)),
        "index": (torch.int64, (5,)),
    }
    assert batch["image"].float().std() > 5


def test_an_image_keeps_its_labels_and_its_row(data, films, table):
    cells = pd.read_csv(table).set_index("path")
    seen = 0
    for split in ("train", "val", "test"):
        for batch in data.evaluation_dataloader(split):
            for image, target, index in zip(*batch.values(), strict=True):
                row = data.table.iloc[int(index)]
                assert row["split"] == split
                expected = cells.loc[row["path"].removeprefix(f"{films}/"), LABELS]
                np.testing.assert_array_equal(target.numpy(), expected.to_numpy(np.float32))
                pixels = fit_square(read_image(row["path"]), 37)
                np.testing.assert_array_equal(image[0].numpy(), pixels)
                seen += 1
    assert seen == len(data.table) == 44


def test_an_empty_cell_is_an_unknown_label(data):
    target = data.target("all")
    assert target.dtype == np.float32
    assert np.isnan(target).sum(axis=0).tolist() == [0, 14]
    assert set(np.unique(target[~np.isnan(target)])) == {0.0, 1.0}


def test_all_is_every_split_once(data):
    index = torch.cat([batch["index"] for batch in data.evaluation_dataloader("all")])
    assert index.tolist() == list(range(44))


def epochs(films, workers, sampler="shuffle", count=2):
    """All batches of some epochs, from one loader."""
    cfg = tiny_config(films, f"data.num_workers={workers}", f"data.sampler={sampler}")
    loader = build.build_data(cfg, build.build_studies(cfg)).train_dataloader()
    assert loader.persistent_workers == (workers > 0)
    found = []
    for epoch in range(count):
        loader.sampler.set_epoch(epoch)
        found.append(list(loader))
    return found


@pytest.mark.parametrize("sampler", ["shuffle", "balanced"])
def test_the_number_of_workers_changes_no_bit_of_an_epoch(films, sampler):
    alone, shared = epochs(films, 0, sampler), epochs(films, 2, sampler)
    for one, two in zip(alone, shared, strict=True):
        assert len(one) == len(two) == 10
        for a, b in zip(one, two, strict=True):
            assert a.keys() == b.keys()
            for key in a:
                assert torch.equal(a[key], b[key]), key


def by_index(epoch):
    images = torch.cat([batch["image"] for batch in epoch])
    return dict(zip(torch.cat([batch["index"] for batch in epoch]).tolist(), images, strict=True))


def test_an_image_is_augmented_anew_in_every_epoch(films):
    first, second = map(by_index, epochs(films, 0))
    both = first.keys() & second.keys()
    assert len(both) > 70
    assert not any(torch.equal(first[index], second[index]) for index in both)


def test_an_image_that_is_drawn_again_is_augmented_anew(films):
    cfg = tiny_config(films)
    dataset = build.build_data(cfg, build.build_studies(cfg)).train_dataloader().dataset
    first, again, second = (dataset[draw]["image"] for draw in ((3, 1, 0), (3, 1, 0), (3, 1, 1)))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


class Witness(pl.LightningModule):
    """Keeps what a Trainer feeds it."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append(batch)
        return self.weight * 1.0

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_a_trainer_is_fed_the_epochs_one_after_the_other(films):
    cfg = tiny_config(films)
    data, witness = build.build_data(cfg, build.build_studies(cfg)), Witness()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(witness, train_dataloaders=data.train_dataloader())
    expected = list(chain(*epochs(films, 0)))
    assert len(witness.seen) == len(expected) == 20
    for fed, batch in zip(witness.seen, expected, strict=True):
        assert torch.equal(fed["index"], batch["index"])
        assert torch.equal(fed["image"], batch["image"])


def test_an_unknown_sampler_is_refused(data):
    with pytest.raises(InputError, match=r"data\.sampler must be one of .*balanced"):
        XrayDataModule(data.table, LABELS, sampler="balance")

"""Large tables cost little, and nothing that was drawn before is drawn otherwise."""

import pickle
import tracemalloc
from itertools import islice
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pandas as pd
import pytest

from benchmarks.memory import LABELS, large_table
from fluoroscope.data.datamodule import Texts, XrayDataModule, XrayDataset
from fluoroscope.data.samplers import ShardBatches, TrainSampler


def draws_of_lists(sampler):
    """As version 0.1 drew them, all at once; published numbers and resumed runs depend on it."""
    rng = np.random.default_rng((sampler.seed, sampler.epoch))
    weights, size = sampler.weights, sampler.size
    if weights is None:
        order = rng.permutation(size)
    else:
        order = rng.choice(size, size, p=weights / weights.sum())
    repeat = pd.Series(order).groupby(order).cumcount().to_numpy()
    used = sampler.batches * sampler.world_size * sampler.batch_size
    shape = (sampler.batches, sampler.world_size, sampler.batch_size)
    done = sampler.first[1] if sampler.epoch == sampler.first[0] else 0
    mine = np.arange(used).reshape(shape)[done:, sampler.rank].ravel()
    return [(int(order[i]), sampler.epoch, int(repeat[i])) for i in mine]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("size", "batch_size", "rank", "world_size"), [(83, 4, 1, 2), (50, 7, 0, 1)]
)
def test_the_draws_are_those_of_version_0_1(size, batch_size, rank, world_size, weighted):
    weights = np.random.default_rng(1).random(size) ** 4 if weighted else None
    sampler = TrainSampler(size, batch_size, 9, weights, rank, world_size)
    for epoch, first in [(0, (0, 0)), (1, (0, 0)), (2, (2, 3)), (3, (2, 3))]:
        sampler.start_at(*first)
        sampler.set_epoch(epoch)
        found = list(sampler)
        assert found == draws_of_lists(sampler)
        assert {type(number) for draw in found for number in draw} == {int}
    assert max(repeat for _, _, repeat in found) > 0 or not weighted


def test_the_order_is_that_of_the_epoch_in_which_it_was_asked_for():
    sampler = TrainSampler(50, 5, 3)
    epoch, other = iter(sampler), TrainSampler(50, 5, 3)
    sampler.set_epoch(7)
    assert list(epoch) == list(other)


NAMES = ["a/b.png", "a/ü b.png", "", "a/x\udcff.png", "a/" + "d" * 300, "0", "a/b.png"]


@pytest.mark.parametrize("names", [NAMES, [f"/x/y{n}" for n in NAMES], ["one"], [""], []])
def test_texts_are_the_strings_they_were_made_of(names):
    texts = Texts(names)
    again = pickle.loads(pickle.dumps(texts))
    assert len(texts) == len(names)
    assert [texts[i] for i in range(len(names))] == names
    assert [again[i] for i in range(len(names))] == names


ROWS = 20_000


@pytest.fixture(scope="module")
def large():
    return XrayDataModule(large_table(ROWS), LABELS, 32, batch_size=8, num_workers=0)


def test_a_row_costs_its_path_its_target_and_little_more(large):
    """No Python object a row: none is kept, and none is made before it is asked for."""
    tracemalloc.start()
    dataset, sampler = large._dataset("train"), large.train_sampler()
    epoch, scored = iter(sampler), iter(ShardBatches(ROWS, 8, 0, 1))
    list(islice(epoch, 100)), list(islice(scored, 100))
    bytes_a_row = tracemalloc.get_traced_memory()[0] / ROWS
    tracemalloc.stop()
    path = len(large.table["path"][0])
    assert 60 < path < 110
    assert bytes_a_row < path + 4 * len(LABELS) + 8 + 8 + 4 * 8 + 16
    assert dataset.paths[17] == large.table["path"][17]


def test_a_worker_is_sent_the_place_of_the_data_and_not_the_data(large):
    """What a worker that is not forked gets; a forked one gets nothing."""
    dataset: XrayDataset = large._dataset("train")
    assert len(bytes(ForkingPickler.dumps(dataset))) < 5000


def test_the_targets_are_those_of_the_table(large):
    found = large.target("train")
    assert (found.dtype, found.shape, found.flags["C_CONTIGUOUS"]) == (np.float32, (ROWS, 14), True)
    np.testing.assert_array_equal(found, large.table[LABELS].to_numpy(np.float32))

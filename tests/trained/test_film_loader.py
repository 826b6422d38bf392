import numpy as np
import torch
from pydicom.data import get_testdata_file

from fluoroscope.data.datamodule import XrayDataset
from fluoroscope.trained.film_loader import film_loader


def test_the_images_are_those_of_training_in_the_order_of_the_paths(films, tmp_path):
    paths = [str(path) for path in sorted(films.rglob("*.png"))[:7]]
    trained = XrayDataset(paths, np.zeros((7, 1), np.float32), np.arange(7), 32)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    paths += [str(tmp_path / "broken.png"), str(tmp_path / "missing.png")]
    batches = list(film_loader(paths, 32, 4, num_workers=0))
    assert [len(batch.image) for batch in batches] == [4, 4, 1]
    image = torch.cat([batch.image for batch in batches])
    for row in range(7):
        assert torch.equal(image[row], trained[(row, 0, 0)]["image"])
    errors = [error for batch in batches for error in batch.errors]
    assert errors[:7] == [""] * 7
    assert all(errors[7:])
    assert not any(str(tmp_path) in error for error in errors)
    assert torch.cat([batch.facts for batch in batches])[:, 0].tolist()[:7] == [48.0] * 7


def test_workers_change_nothing(films):
    paths = [str(path) for path in sorted(films.rglob("*.png"))[:5]]
    paths.append(get_testdata_file("RG1_UNCR.dcm"))
    alone, helped = (list(film_loader(paths, 32, 2, num_workers=n)) for n in (0, 2))
    for ours, theirs in zip(alone, helped, strict=True):
        assert torch.equal(ours.image, theirs.image)
        assert torch.equal(ours.facts, theirs.facts)
        assert ours.errors == theirs.errors

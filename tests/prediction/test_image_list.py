import pandas as pd
import pytest

from fluoroscope.errors import InputError
from fluoroscope.prediction.image_list import list_images
from fluoroscope.trained.film_loader import FilmFiles


def names(images):
    return [images.name(row) for row in range(len(images.paths))]


@pytest.fixture
def folder(films, tmp_path):
    """Films with and without suffix, a damaged one, and files that are not images."""
    film = next(films.rglob("*.png")).read_bytes()
    for name in ("b/2.png", "a/1", "b/10.png", "__MACOSX/3.png", "b/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"text" if name.endswith("txt") else film)
    (tmp_path / "b/broken.dcm").write_bytes(b"")
    return tmp_path


def test_the_images_of_a_folder_are_told_apart_by_content_and_named_below_it(folder, monkeypatch):
    images = list_images(folder, "path")
    assert names(images) == ["a/1", "b/10.png", "b/2.png", "b/broken.dcm"]
    assert images.others == {"txt": 1, "__macosx": 1}
    monkeypatch.chdir(folder / "b")
    assert names(list_images(folder / "b/../b", "path")) == ["10.png", "2.png", "broken.dcm"]


def test_one_file_is_named_without_its_folder(folder):
    for name in ("a/1", "b/broken.dcm"):
        images = list_images(folder / name, "path")
        assert names(images) == [name[2:]]
        assert images.paths == [str(folder / name)]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet", "table"])
def test_the_images_of_a_table_are_named_by_their_row(folder, suffix):
    file = folder / f"list.{suffix}"
    cells = pd.DataFrame({"name": ["x", "y", "z"], "film": ["a/1", str(folder / "b/2.png"), "no"]})
    if suffix == "parquet":
        cells.to_parquet(file)
    else:
        cells.to_csv(file, sep="\t" if suffix == "tsv" else ";", index=False)
    images = list_images(file, "film")
    assert names(images) == ["0", "1", "2"]
    assert images.paths == [str(folder / name) for name in ("a/1", "b/2.png", "no")]
    with pytest.raises(InputError, match="path_column needs the column 'path'"):
        list_images(file, "path")


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_an_empty_cell_of_a_table_is_no_file(folder, suffix):
    file = folder / f"list.{suffix}"
    cells = pd.DataFrame({"path": ["a/1", None, "b"]})
    _ = cells.to_parquet(file) if suffix == "parquet" else cells.to_csv(file)
    images = list_images(file, "path")
    assert images.paths == [str(folder / "a/1"), "", str(folder / "b")]
    films = FilmFiles(images.paths, 32)
    errors = ["", "no such file or directory", "it is a directory, a pipe or a device, not a file"]
    assert [films[row].errors[0] for row in range(3)] == errors


def test_nothing_to_predict_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no image"):
        list_images(tmp_path, "path")
    (tmp_path / "empty.csv").write_text("path\n")
    with pytest.raises(InputError, match="has no rows"):
        list_images(tmp_path / "empty.csv", "path")
    (tmp_path / "none.csv").write_text("")
    with pytest.raises(InputError, match="cannot read"):
        list_images(tmp_path / "none.csv", "path")

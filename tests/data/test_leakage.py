import shutil

from fluoroscope.data.leakage import marks


def test_a_copy_is_known_under_any_name_and_nothing_else_is(films, tmp_path):
    paths = sorted(map(str, films.rglob("*.png")))
    known = marks(paths)
    assert len(set(known)) == len(paths) == 120
    shutil.copy(paths[7], tmp_path / "other.png")
    assert marks([str(tmp_path / "other.png")]) == [known[7]]
    assert all(-(2**63) <= mark < 2**63 for mark in known)

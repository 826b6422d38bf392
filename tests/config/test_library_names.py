"""Names that are read from the source of timm and albumentations are those of the libraries."""

import subprocess
import sys
from inspect import signature

import pytest
import timm
from timm.models import _registry

from fluoroscope.config import library_names
from fluoroscope.data.transforms import TRANSFORMS
from fluoroscope.errors import InputError
from tests.config.test_config import changed, refusal


def test_networks_are_those_that_timm_knows():
    registered, renamed = library_names.networks()
    assert registered == set(timm.list_models())
    assert len(registered) > 1000
    assert renamed >= set(_registry.get_deprecated_models())


def test_every_transform_is_among_the_classes_of_albumentations():
    assert library_names.classes_of_albumentations() >= {*TRANSFORMS}
    assert len(TRANSFORMS) > 100


def test_arguments_are_those_that_the_transform_takes():
    listed = 0
    for name, transform in TRANSFORMS.items():
        if arguments := library_names.arguments_of_transform(name):
            assert arguments == {*signature(transform).parameters} - {"kwargs"}, name
            listed += 1
    assert listed > 0.9 * len(TRANSFORMS)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        (
            "backbone.name=efficientnet_b44.ra2_in1k",
            "backbone.name: timm has no model 'efficientnet_b44.ra2_in1k' (did you mean 'effici",
        ),
        (
            "data.augment=[{name: Affinee, p: 1}]",
            "data.augment: albumentations has no transform 'Affinee' (did you mean 'Affine'?); "
            "each entry is {name: Affine, rotate: [-7, 7], p: 0.9}",
        ),
        (
            "data.augment=[{name: Rotate, limt: 3}]",
            "data.augment: Rotate has no argument 'limt' (did you mean 'limit'?); it has border_mo",
        ),
        ("data.augment=[{p: 1}]", "data.augment: albumentations has no transform ''"),
    ],
)
def test_a_name_that_the_library_does_not_have_is_refused(override, told):
    assert told in refusal(override)


@pytest.mark.parametrize("name", ["efficientnet_b4", "resnet18.a1_in1k", "tv_resnext50_32x4d"])
def test_names_with_and_without_weights_and_former_names_pass(name):
    assert changed(f"backbone.name={name}").backbone.name == name


def test_a_network_of_the_project_passes(tmp_path, monkeypatch):
    (tmp_path / "own.py").write_text("@timm.models.register_model\ndef my_net(**args): ...\n")
    monkeypatch.setattr(library_names, "NETWORKS", tmp_path)
    library_names.networks.cache_clear()
    try:
        library_names.check_network("backbone.name", "my_net")
        assert "my_net" in library_names.networks()[0]
    finally:
        library_names.networks.cache_clear()


def test_libraries_that_are_not_installed_or_change_their_style_refuse_nothing(monkeypatch):
    monkeypatch.setattr(library_names, "find_spec", lambda package: None)
    read = (
        *(library_names.networks, library_names.classes_of_albumentations),
        *(library_names.arguments_of_transform, library_names._source),
    )
    for names in read:
        names.cache_clear()
    try:
        library_names.check_network("backbone.name", "anything")
        library_names.check_transforms("data.augment", [{"name": "Anything", "any": 1}])
        assert library_names.classes_of_albumentations() == frozenset()
    finally:
        for names in read:
            names.cache_clear()


def test_the_libraries_are_not_imported():
    code = (
        "import sys\n"
        "from fluoroscope.config import library_names as names\n"
        "names.networks(), names.classes_of_albumentations()\n"
        "assert not {'timm', 'torch', 'numpy', 'albumentations'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_weights_to_fetch_are_checked_by_the_same_names():
    with pytest.raises(InputError, match=r"^weights: timm has no model 'resnet1888' \(did you"):
        library_names.check_network("weights", "resnet1888")

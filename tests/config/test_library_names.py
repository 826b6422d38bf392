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
from fluoroscope.model import networks
from tests.config.test_config import changed, refusal


def test_the_list_of_networks_is_that_of_timm():
    """After an update of timm: python -m fluoroscope.model.networks."""
    assert library_names.LIST.read_text().splitlines() == [*networks.lines()]
    version, known = library_names.networks()
    assert version == timm.__version__
    assert {*known} == {*timm.list_models(), *_registry.get_deprecated_models()}
    assert len(known) > 1000
    pretrained = {*timm.list_models(pretrained=True)}
    assert pretrained <= {f"{name}.{tag}" for name, tags in known.items() for tag in tags}


@pytest.fixture
def older(tmp_path, monkeypatch):
    """A list of an older timm, which lacks a network and a tag that the installed one has."""
    kept = library_names.LIST.read_text().splitlines()[1:]
    kept = [line.replace(" a2_in1k", "") for line in kept if not line.startswith("resnet34 ")]
    (tmp_path / "networks.txt").write_text("\n".join(["timm 0.1", *kept]))
    monkeypatch.setattr(library_names, "LIST", tmp_path / "networks.txt")
    library_names.networks.cache_clear()
    yield
    library_names.networks.cache_clear()


@pytest.mark.parametrize("name", ["resnet34", "resnet34.a1_in1k", "resnet18.a2_in1k", "resnet50"])
def test_a_name_that_only_the_installed_timm_has_passes(older, name):
    library_names.check_network("backbone.name", name)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("resnet34s", "timm has no model 'resnet34s' (did you mean 'resnet34"),
        ("resnet34.a9_in1k", "timm has no weights 'resnet34.a9_in1k' (did you mean 'resnet34."),
    ],
)
def test_a_name_that_the_installed_timm_lacks_too_is_refused(older, name, told):
    with pytest.raises(InputError) as refusal:
        library_names.check_network("backbone.name", name)
    assert told in str(refusal.value)


def test_timm_is_not_asked_about_names_in_the_list(older, monkeypatch):
    monkeypatch.setattr(library_names, "import_module", None)
    library_names.check_network("backbone.name", "resnet50.a1_in1k")


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
            "backbone.name=efficientnet_b4.ra3_in1k",
            "timm has no weights 'efficientnet_b4.ra3_in1k' (did you mean 'efficientnet_b4.ra2_in1",
        ),
        ("backbone.name=efficientnet_b4.", "timm has no weights 'efficientnet_b4.'"),
        ("backbone.name=.ra2_in1k", "backbone.name: timm has no model '.ra2_in1k'"),
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
    monkeypatch.setattr(library_names, "MODEL", tmp_path)
    library_names.own_networks.cache_clear()
    try:
        library_names.check_network("backbone.name", "my_net")
        assert library_names.own_networks() == {"my_net"}
    finally:
        library_names.own_networks.cache_clear()


def test_libraries_that_are_not_installed_or_change_their_style_refuse_nothing(monkeypatch):
    monkeypatch.setattr(library_names, "find_spec", lambda package: None)
    read = (
        *(library_names.classes_of_albumentations, library_names.arguments_of_transform),
        library_names._source,
    )
    for names in read:
        names.cache_clear()
    try:
        library_names.check_transforms("data.augment", [{"name": "Anything", "any": 1}])
        assert library_names.classes_of_albumentations() == frozenset()
    finally:
        for names in read:
            names.cache_clear()


def test_the_libraries_are_not_imported():
    code = (
        "import sys\n"
        "from fluoroscope.config import library_names as names\n"
        "names.check_network('a', 'resnet50'), names.classes_of_albumentations()\n"
        "assert not {'timm', 'torch', 'numpy', 'albumentations'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_weights_to_fetch_are_checked_by_the_same_names():
    with pytest.raises(InputError, match=r"^weights: timm has no model 'resnet1888' \(did you"):
        library_names.check_network("weights", "resnet1888")

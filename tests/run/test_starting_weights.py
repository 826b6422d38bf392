"""A run that starts from the checkpoint of an earlier run."""

import shutil
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from fluoroscope import build
from fluoroscope.config.schema import plain
from fluoroscope.data.earlier_runs import marks_of
from fluoroscope.errors import InputError
from fluoroscope.run import starting_weights
from fluoroscope.run.resume import load_checkpoint
from fluoroscope.run.same_model import check_same_model
from fluoroscope.train import train
from tests.run.test_added import run
from tests.support.commands import tiny_arguments
from tests.support.films import TINY, config, tiny_config, write_films

KEYS = ("head.norm=layer", "diagnostics.enabled=false", "trainer.max_epochs=1")


@pytest.fixture(scope="module")
def start(trained_run):
    return ["backbone.weights=file", f"backbone.file={trained_run}/checkpoints/best.ckpt"]


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """Other films of other people."""
    root = write_films(tmp_path_factory.mktemp("elsewhere"), seed=7)
    for path in sorted(root.rglob("*.png")):
        path.rename(path.with_name(path.name.replace("p0", "p9")))
    return root


def model_of(cfg):
    return build.build_classifier(cfg, build.build_data(cfg, build.build_studies(cfg)))


def test_backbone_and_head_are_those_of_the_checkpoint(films, start, trained_run, capsys):
    cfg = tiny_config(films, *KEYS, *start)
    stored = load_checkpoint(trained_run / "checkpoints/best.ckpt")["state_dict"]
    for name, value in model_of(cfg).state_dict().items():
        if name.startswith(("backbone.", "head.")):
            assert torch.equal(value, stored[name]), name
    assert "the head is that of the earlier run" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        (["head.activation=gelu"], "head.activation differs"),
        (["head.width=17"], "head.width differs"),
        (["head.prior_bias=true"], "head.prior_bias or head.bias_init sets its biases"),
    ],
)
def test_another_head_starts_anew(films, start, trained_run, keys, told, capsys):
    model = model_of(tiny_config(films, *KEYS, *start, *keys))
    stored = load_checkpoint(trained_run / "checkpoints/best.ckpt")["state_dict"]
    assert torch.equal(
        model.backbone.network.conv_stem.weight, stored["backbone.network.conv_stem.weight"]
    )
    own, before = model.head.out.weight, stored["head.out.weight"]
    assert own.shape != before.shape or not torch.equal(own, before)
    assert f"the head starts anew: {told}" in " ".join(capsys.readouterr().out.split())


def test_the_head_of_other_labels_starts_anew(films, start, tmp_path, capsys):
    for name, label in (("NORMAL", "NORMAL"), ("BLOB", "DISC")):
        shutil.copytree(films / name, tmp_path / label)
    keys = ["data.on_duplicate=keep", *start]
    model_of(tiny_config(tmp_path, *KEYS, *keys))
    assert "the head starts anew: the labels differ" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        (["backbone.name=test_convnext"], "set backbone.name=test_efficientnet"),
        (["++backbone.args={in_chans: 1}"], "another form of the network"),
        (
            ["++backbone.contract={channels: 3, mean: 0, std: 1, range: [0, 1]}"],
            "backbone.contract differs",
        ),
    ],
)
def test_another_network_is_refused(films, start, keys, told, tmp_path):
    with pytest.raises(InputError, match=told):
        train(tiny_config(films, *KEYS, *start, *keys), tmp_path / "run", [])
    assert not [file for file in (tmp_path / "run").rglob("*") if file.suffix != ".lock"]


def test_images_of_the_first_training_are_not_tested(films, start, tmp_path):
    """Another split of the same films: the first run was trained on some that are tested now."""
    cfg = tiny_config(films, *KEYS, *start, "data.fold=2/3", "data.splits=own")
    with pytest.raises(InputError, match=r"data\.on_duplicate=drop") as refusal:
        build.build_studies(cfg)
    assert "of the" in str(refusal.value)


def test_they_can_be_left_out_or_kept(films, start, trained_run):
    first = load_checkpoint(trained_run / "checkpoints/best.ckpt")
    split = ["data.fold=2/3", "data.splits=own"]
    kept = build.build_studies(tiny_config(films, *KEYS, *start, *split, "data.on_duplicate=keep"))
    left = build.build_studies(tiny_config(films, *KEYS, *start, *split, "data.on_duplicate=drop"))
    seen = set(first["seen"].tolist())

    def of(studies, name):
        return studies.survey["exact"][studies.rows_of(name)]

    by_hand = of(kept, "test").isin(seen)
    assert 0 < by_hand.sum() < len(by_hand)
    assert not of(left, "test").isin(seen).any()
    assert set(of(left, "train")) == set(of(kept, "train"))
    assert any("left out" in decision.policy for decision in left.decisions)
    assert left.fingerprint != kept.fingerprint


def test_the_marks_of_a_run_are_its_own_and_those_before_it():
    first, second, third = ({"split_fingerprint": name, "seen": name} for name in "abc")
    last = third | {"earlier": [first, second], "state_dict": {}}
    assert marks_of(last) == [first, second, third]
    again = {**first, "earlier": [first, second]}  # the same studies again
    assert marks_of(again) == [first, second]


@pytest.mark.whole
def test_the_first_training_stays_known_through_a_chain_of_runs(
    films, elsewhere, start, trained_run, tmp_path
):
    first = load_checkpoint(trained_run / "checkpoints/best.ckpt")
    place, before = tmp_path / "0", start
    for number in (1, 2):
        place = tmp_path / str(number)
        keys = [*KEYS, *before, f"seed={number}"]
        train(tiny_config(elsewhere, *keys), place, [])
        before = ["backbone.weights=file", f"backbone.file={place}/checkpoints/best.ckpt"]
    last = load_checkpoint(place / "checkpoints/best.ckpt")
    assert last["earlier"][0]["split_fingerprint"] == first["split_fingerprint"]
    assert len(last["earlier"]) == 2
    assert torch.equal(last["earlier"][0]["seen"], first["seen"])
    with pytest.raises(InputError, match="was trained or validated on"):
        build.build_studies(tiny_config(films, *KEYS, *before, "data.fold=2/3", "data.splits=own"))
    # Its own test split is scored again without a question.
    from fluoroscope.trained.loading import open_trained
    from fluoroscope.trained.same_studies import same_studies

    trained = open_trained(place, "cpu")
    assert same_studies(trained.config, trained.checkpoint).fingerprint == last["split_fingerprint"]


def test_a_run_with_left_out_images_is_read_again_without_them(films, start, tmp_path):
    from fluoroscope.trained.loading import open_trained
    from fluoroscope.trained.same_studies import same_studies

    split = ["data.fold=2/3", "data.splits=own", "data.on_duplicate=drop"]
    cfg = tiny_config(films, *KEYS, *start, *split)
    studies = build.build_studies(cfg)
    train(cfg, tmp_path / "run", [])
    trained = open_trained(tmp_path / "run", "cpu")
    assert same_studies(trained.config, trained.checkpoint).table.equals(studies.table)


def test_averaged_weights_are_taken_as_the_checkpoint_holds_them(films, tmp_path):
    keys = ["optimizer.ema_decay=0.9"]
    train(tiny_config(films, *KEYS, *keys), tmp_path / "run", [])
    file = tmp_path / "run/checkpoints/best.ckpt"
    cfg = tiny_config(films, *KEYS, "backbone.weights=file", f"backbone.file={file}")
    stored = torch.load(file, weights_only=True)
    assert "current_model_state" in stored
    name = "backbone.network.conv_stem.weight"
    assert torch.equal(model_of(cfg).state_dict()[name], stored["state_dict"][name])
    assert not torch.equal(stored["state_dict"][name], stored["current_model_state"][name])


def test_a_damaged_or_foreign_file_is_no_checkpoint(films, start, trained_run, tmp_path):
    file = tmp_path / "best.ckpt"
    shutil.copy(trained_run / "checkpoints/best.ckpt", file)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x80
    file.write_bytes(content)
    cfg = tiny_config(films, *KEYS, "backbone.weights=file", f"backbone.file={file}")
    with pytest.raises(InputError, match="damaged"):
        model_of(cfg)


def test_the_checkpoint_of_a_resumed_run_stands_for_the_file_it_started_from(
    films, trained_run, monkeypatch
):
    first = load_checkpoint(trained_run / "checkpoints/best.ckpt")
    keys = ["data.fold=2/3", "data.splits=own", "data.on_duplicate=drop"]
    cfg = tiny_config(films, *KEYS, *keys, "backbone.weights=file", "backbone.file=gone.ckpt")
    own = trained_run / "checkpoints/last.ckpt", {"earlier": [first]}
    monkeypatch.setattr(starting_weights, "newest_checkpoint", lambda _: own)
    build.check_model(cfg, pretrained=False)
    kept = build.build_studies(cfg)
    left = build.build_studies(cfg, trained=trained_run)
    assert len(left.table) < len(kept.table)
    assert left.earlier[0]["split_fingerprint"] == first["split_fingerprint"]


@pytest.mark.whole
def test_a_run_is_resumed_without_the_file_that_it_started_from(
    films, trained_run, tmp_path, monkeypatch, capsys
):
    """Its own checkpoint has the weights, and the marks of the images that were left out."""
    file = tmp_path / "first.ckpt"
    shutil.copy(trained_run / "checkpoints/best.ckpt", file)
    words = tiny_arguments(films, *KEYS, "backbone.weights=file", f"backbone.file={file}")
    words += ["data.fold=2/3", "data.splits=own", "data.on_duplicate=drop"]
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, capsys, *words, "run.dir=run")[0] == 0
    before = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    for name, resumed in (("gone", "run.resume=gone"), ("other", "run.resume=auto")):
        shutil.copytree("run", name)
        file.unlink(missing_ok=True)
        if name == "other":  # a run of another network takes its place
            train(tiny_config(films, *KEYS, "backbone.name=test_convnext"), tmp_path / "x", [])
            shutil.copy("x/checkpoints/best.ckpt", file)
        more = [] if name == "gone" else [*words, f"run.dir={name}"]
        (tmp_path / name / "result.json").unlink()
        assert run(monkeypatch, capsys, *more, resumed, "trainer.max_epochs=2")[0] == 0
        after = torch.load(f"{name}/checkpoints/last.ckpt", weights_only=True)
        assert after["epochs"] == 2
        for then, now in zip(before["earlier"], after["earlier"], strict=True):
            assert torch.equal(then["seen"], now["seen"])
    file.unlink()
    code, _, err = run(monkeypatch, capsys, *words, "run.dir=new")
    assert (code, "backbone.file" in err, Path("new").exists()) == (2, True, False)


def test_the_same_command_finds_a_run_whose_form_came_with_its_weights(films, tmp_path):
    """As a SLURM job that is started again: the command names neither arguments nor contract."""
    contract = {"channels": 1, "mean": [0.5], "std": [0.25], "range": [0.0, 1.0]}
    words = [
        "backbone.weights=file",
        "backbone.file=first.ckpt",
        "++backbone.args={drop_rate: 0.1}",
    ]
    settled = tiny_config(films, *KEYS, *words)
    settled.backbone.args = {"drop_rate": 0.1, "in_chans": 1}
    settled.backbone.contract = contract
    OmegaConf.save(settled, tmp_path / "config.yaml")
    again = tiny_config(films, *KEYS, *words)
    check_same_model(again, tmp_path)
    assert plain(again.backbone) == plain(settled.backbone)
    for more, key in (
        (["++backbone.args={drop_rate: 0.2}"], "args.drop_rate"),
        (["++backbone.args={drop_path_rate: 0.2}"], "args.drop_path_rate"),
        (["backbone.weights=none"], "weights"),
    ):
        with pytest.raises(InputError, match=f"has backbone.{key}="):
            check_same_model(tiny_config(films, *KEYS, *words, *more), tmp_path)


def test_a_head_follows_its_labels_into_another_order(films, tmp_path, monkeypatch):
    """Each label keeps its own weights, also where two labels have changed places."""
    table = tmp_path / "films.csv"
    rows = [f"{p},{p.name[:4]},{i % 2},{i % 3 % 2}" for i, p in enumerate(films.rglob("*.png"))]
    table.write_text("\n".join(["path,who,Mass,Nodule", *rows]))
    keys = [word for word in TINY if word != "data=folder"] + [*KEYS, "data=table"]
    keys += [f"data.csv={table}", f"data.root={films}", "data.patient_column=who"]
    first = config(*keys, "data.labels=[Mass,Nodule]")
    before = model_of(first)
    stored = {"config": plain(first), "state_dict": before.state_dict()}
    monkeypatch.setattr(starting_weights, "own_checkpoint", lambda _: stored)
    swapped = config(*keys, "data.labels=[Nodule,Mass]", "seed=2")
    swapped.backbone.weights, swapped.backbone.file = "file", "first.ckpt"
    monkeypatch.setattr(starting_weights, "marks_of", lambda _: [])
    after = model_of(swapped)
    assert list(after.labels) == ["Nodule", "Mass"]
    assert torch.equal(after.head.out.weight, before.head.out.weight.flip(0))
    assert torch.equal(after.head.out.bias, before.head.out.bias.flip(0))
    assert torch.equal(after.head.dense.weight, before.head.dense.weight)

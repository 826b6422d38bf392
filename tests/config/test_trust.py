"""Which code today's command trusts."""

import os
import subprocess
import sys

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from fluoroscope.config import CONF
from fluoroscope.config.ablate import check_ablate
from fluoroscope.config.train import check_train
from fluoroscope.config.trust import trusted_today
from fluoroscope.errors import InputError
from fluoroscope.own_code import trusting
from tests.config.test_config import changed

SNAKE = "mypkg.acts.Snake"
COMMANDS = ("train", "ablate", "evaluate", "explain", "predict", "export", "demo")


def composed(name, *words):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, list(words))


def trusted(name, *words):
    return trusted_today(composed(name, *words))


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_takes_trust_and_trusts_nothing_unasked(name):
    assert trusted(name) == set()
    assert trusted(name, "trust=[mypkg,other.acts]") == {"mypkg", "other.acts"}


@pytest.mark.parametrize("value", ["mypkg", ["my-pkg"], [""], [1], {"a": "b"}, ["a."], ["*"], 3])
def test_trust_lists_names(value):
    with pytest.raises(InputError, match=r"^trust must be a list of packages, written 'trust="):
        trusted_today(OmegaConf.create({"trust": value}))


def test_a_command_trusts_what_it_names():
    assert trusted("train", f"head.activation={SNAKE}") == {SNAKE}
    assert trusted("train", f"run.name={SNAKE}", f"data.root={SNAKE}") == set()
    heads = f"activations=[relu,{SNAKE},{{mypkg.acts.swish: {{a: 1}}}}]"
    assert trusted("ablate", heads) == {SNAKE, "mypkg.acts.swish"}
    remedies = {"mine": [f"head.activation={SNAKE}", "optimizer.lr=0.1"]}
    assert trusted_today(OmegaConf.create({"remedies": remedies})) == {SNAKE}
    assert trusted("train", "+callbacks.mine={_target_: mypkg.Mine, every: 3}") == {"mypkg.Mine"}


def test_an_ablation_takes_activations_of_ones_own_by_name(own_package):
    own_package()
    heads = f"activations=[relu,{SNAKE},{{{SNAKE}: {{a: 3}}}}]"
    words = ["backbone=lite0", "data=phantom", heads, "seeds=1"]
    ablation = check_ablate(composed("ablate", *words), words)
    assert [*ablation.heads][:3] == ["relu-s1", f"{SNAKE}-s1", f"{SNAKE}-a3-s1"]
    assert ablation.heads[f"{SNAKE}-a3-s1"].head.activation_args == {"a": 3}


def resumed(tmp_path, *words, trust=()):
    words = [f"run.resume={tmp_path}", *words]
    cfg = composed("train", *words)
    with trusting({*trust, *trusted_today(cfg)}):
        return check_train(cfg, words)


def test_a_resumed_run_asks_for_its_code_and_takes_it_from_the_command(own_package, tmp_path):
    own_package()
    keys = f"head.activation={SNAKE}", "+head.activation_args.a=1.5"
    OmegaConf.save(changed(*[key.lstrip("+") for key in keys]), tmp_path / "config.yaml")
    told = rf"config.yaml: head.activation names code, '{SNAKE}', .*; if you trust it, add trust=\["
    for words in ([], ["trust=[my]", "run.name=mypkg.acts.Snake"]):
        with pytest.raises(InputError, match=told):
            resumed(tmp_path, *words)
    for words in (["trust=[mypkg]"], keys[:1], keys):
        cfg = resumed(tmp_path, *words, "trainer.max_epochs=3")
        assert (cfg.head.activation, cfg.head.activation_args) == (SNAKE, {"a": 1.5})
        assert cfg.trainer.max_epochs == 3
    with pytest.raises(InputError, match=r"activation_args.a is 1.5, and 2 needs a new run"):
        resumed(tmp_path, keys[0], "+head.activation_args.a=2")
    with pytest.raises(InputError, match=r"activation is 'mypkg.acts.Snake', and 'relu' needs a"):
        resumed(tmp_path, "head.activation=relu", "trust=[mypkg]")


def test_trust_is_no_key_of_a_run(own_package, tmp_path):
    """A stored configuration cannot trust: it would be the stranger who says so."""
    stored = OmegaConf.to_container(changed())
    assert "trust" not in stored
    OmegaConf.save({**stored, "trust": ["os"]}, tmp_path / "config.yaml")
    with pytest.raises(InputError, match="this version has no key trust"):
        resumed(tmp_path)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("mypgk.acts.Snake", "there is no module mypgk (did you mean 'mypkg'?)"),
        ("mypkg.acts.Snake[0]", "must be the import path"),
    ],
)
def test_a_path_that_cannot_be_is_refused_without_pytorch(own_package, name, told):
    own_package("raise SystemExit")
    code = (
        "import sys\n"
        "from fluoroscope.model.activations import check_activation\n"
        f"try: check_activation({name!r})\n"
        "except ValueError as refusal: print(refusal)\n"
        "assert not {'torch', 'mypkg'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, env=os.environ, stdout=subprocess.PIPE, text=True
    )
    assert told in done.stdout

import pytest
from hydra import compose, initialize_config_dir

from fluoroscope.config import CONF
from fluoroscope.config.ablate import check_ablate
from fluoroscope.errors import InputError


def checked(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return check_ablate(compose("ablate", [*overrides]), overrides)


def test_every_combination_is_a_head_with_a_name_of_its_own():
    asked = checked(
        "activations=[relu,{leaky_relu:{negative_slope:0.1}}]",
        "seeds=3",
        "seed=5",
        "++grid.head.order=[activation-norm,norm-activation]",
        "++grid.optimizer.lr=[1e-3,1e-4]",
    )
    assert len(asked.heads) == 3 * 3 * 2 * 2  # identity was added
    cfg = asked.heads[
        "leaky_relu-0.1-norm-activation-lr0.0001-s6".replace("0.1", "negative_slope0.1", 1)
    ]
    told = (cfg.head.activation, cfg.head.order, cfg.optimizer.lr, cfg.seed, cfg.run.name)
    assert told[:4] == ("leaky_relu", "norm-activation", 1e-4, 6)
    assert cfg.head.activation_args == {"negative_slope": 0.1}
    assert told[4] == "leaky_relu-negative_slope0.1-norm-activation-lr0.0001-s6"
    assert any("identity" in note for note in asked.notes)


def test_the_default_is_twelve_activations_and_ten_seeds_on_images_as_they_are():
    asked = checked()
    assert len(asked.heads) == 120
    assert len({cfg.head.activation for cfg in asked.heads.values()}) == 12
    assert all(cfg.data.augment == [] for cfg in asked.heads.values())
    assert not asked.notes


def test_a_backbone_that_runs_once_for_all_fixes_the_order_and_augments():
    asked = checked("features=live", "seeds=2", "seed=4")
    orders = {cfg.data.order_seed for cfg in asked.heads.values()}
    assert orders == {4}
    assert all(cfg.data.augment for cfg in asked.heads.values())
    assert "order_seed=4" in asked.notes[0]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("seeds=0", "seeds must be at least 1; got 0"),
        ("views=-1", "views must be"),
        ("memory_gib=0", "memory_gib must be a number above 0"),
        ("features=some", "features must be one of cached, live"),
        ("report=maybe", "report must be true or false"),
        ("activations=relu", "written 'activations=\\[relu,gelu\\]'"),
        ("activations=[relu,relu]", "twice"),
        ("activations=[[relu]]", "each entry must be NAME or"),
        ("++grid.seed=[1]", r"set activations and seeds with activations=\[...\]"),
        ("++grid.head.activation=[relu]", "activations and seeds"),
        ("++grid.optimizer.lr=1e-3", "must be a list"),
        ("++grid.optimizer.lr=[1e-3,0.001]", "grid.optimizer.lr lists 0.001 twice; remove one"),
        ("head.activation=gelu", "an ablation takes a list of activations"),
        ("++head.activation_args.alpha=2", "an ablation takes a list of activations"),
        ("++grid.head.order=[sideways]", "head.order must be one of"),
        ("++grid.head.widht=[3]", "did you mean 'head.width'"),
        ("backbone.frozen=false", "scripts/train.py -m"),
        ("trainer.devices=2", "one process"),
        ("trainer.precision=16-mixed", "bf16-mixed"),
        ("trainer.accumulate_grad_batches=2", "cannot be changed for heads"),
        ("optimizer.ema_decay=0.9", "optimizer.ema_decay"),
        ("run.patience=2", "run.patience"),
        ("diagnostics.enabled=false", "diagnostics.enabled"),
        ("run.resume=there", "give its folder as run.dir"),
    ],
)
def test_what_heads_cannot_share_is_refused(override, said):
    with pytest.raises(InputError, match=said):
        checked(override)


def test_views_are_of_cached_features():
    with pytest.raises(InputError, match="augments images in each epoch"):
        checked("views=2", "features=live")

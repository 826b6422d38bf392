"""An ablation refuses an optimizer by which one head would change another."""

import pytest

from fluoroscope.ablation.separate_steps import check_separate
from fluoroscope.errors import InputError
from fluoroscope.model.optimizer import Descent


@pytest.mark.parametrize("name", ["adamw", "sgd", "lion", "rmsproptf", "nadamw"])
def test_elementwise_steps_are_taken(name):
    check_separate(Descent(name=name))


@pytest.mark.parametrize("name", ["lamb", "lars", "adafactor", "adafactorbv", "cadamw", "adamp"])
def test_steps_that_look_at_a_whole_weight_are_refused(name):
    with pytest.raises(InputError, match=rf"optimizer.name={name} takes steps that depend on all"):
        check_separate(Descent(name=name))

"""The table of activations, which the configuration reads without PyTorch."""

import inspect
import os
import subprocess
import sys
from importlib import import_module

import pytest
import torch

from fluoroscope.errors import InputError
from fluoroscope.model.activation_table import ACTIVATIONS, Activation
from fluoroscope.model.activations import make_activation
from tests.config.test_config import changed, refusal


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_table_lists_the_arguments_of_the_class(name):
    module, _, kind = ACTIVATIONS[name].path.partition(":")
    parameters = inspect.signature(getattr(import_module(module), kind)).parameters
    # Some classes swallow any argument by *args and **kwargs.
    takes = {key for key, value in parameters.items() if value.kind == value.POSITIONAL_OR_KEYWORD}
    assert set(ACTIVATIONS[name].arguments) == takes - {"device", "dtype"}


def test_the_configuration_refuses_misspelt_activations_and_arguments():
    assert "did you mean 'relu'" in refusal("head.activation=rleu")
    told = refusal("head.activation=leaky_relu", "head.activation_args.slope=0.1")
    assert told.startswith("head.activation_args.slope: leaky_relu does not take it")
    with pytest.raises(InputError, match="did you mean 'relu'"):
        make_activation("rleu")


def test_the_configuration_checks_activations_without_pytorch():
    code = (
        "import sys, fluoroscope.config.train, fluoroscope.config.evaluate\n"
        "assert not {'torch', 'pandas', 'numpy', 'timm'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, env=os.environ, timeout=60)
    assert done.returncode == 0


def test_a_new_activation_needs_one_line(monkeypatch):
    monkeypatch.setitem(ACTIVATIONS, "shrink", Activation("torch.nn:Hardshrink", ("lambd",)))
    assert changed("head.activation=shrink", "head.activation_args.lambd=0.4").head
    made = make_activation("shrink", lambd=0.4)
    assert made(torch.tensor([0.3, 0.5])).tolist() == [0.0, 0.5]

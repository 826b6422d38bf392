"""Whether an optimizer treats each head of a bank as if it were alone."""

import torch
from torch import Tensor, nn

from fluoroscope.commands import called
from fluoroscope.errors import InputError
from fluoroscope.model.optimizer import Descent

# Of a head, in a bank along the first dimension. Small matrices are not factored (Adafactor).
SHAPES = {"dense": (140, 131), "bias": (140,), "out": (1, 2, 140)}
STEPS = 4


def check_separate(descent: Descent) -> None:
    """Refuse an optimizer whose step of one head depends on the other heads.

    Such are those that scale a whole weight's step by its norm (LAMB, LARS), or look at a weight as
    a matrix (Muon, Adafactor). Some steps of two small heads, stacked and apart, show it.

    Raises:
        InputError: names the optimizer.
    """
    generator = torch.Generator().manual_seed(0)
    # The second head has larger weights and gradients.
    heads = [{k: size * _drawn(shape, generator) for k, shape in SHAPES.items()} for size in (1, 9)]
    slopes = [
        [{k: size * _across(v, generator) for k, v in head.items()} for _ in range(STEPS)]
        for head, size in zip(heads, (1, 50), strict=True)
    ]
    apart = _stacked([_stepped(descent, *head) for head in zip(heads, slopes, strict=True)])
    together = _stepped(descent, _stacked(heads), list(map(_stacked, zip(*slopes, strict=True))))
    if not all(torch.allclose(together[k], apart[k], rtol=1e-9, atol=0) for k in SHAPES):
        raise InputError(
            f"optimizer.name={descent.name} takes steps that depend on all values of a weight, and "
            "heads that are trained together share their weights; choose another optimizer, such "
            f"as sgd or lion, or train the heads one by one with {called('train')} -m"
        )


def _drawn(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _across(weight: Tensor, generator: torch.Generator) -> Tensor:
    """A gradient at a right angle to the weight, as behind batch norm: AdamP acts on such."""
    drawn = _drawn(weight.shape, generator)
    return drawn - weight * (drawn * weight).sum() / weight.square().sum()


def _stacked(heads: "tuple[dict[str, Tensor], ...] | list[dict[str, Tensor]]") -> dict[str, Tensor]:
    return {key: torch.cat([head[key] for head in heads]) for key in SHAPES}


def _stepped(
    descent: Descent, start: dict[str, Tensor], slopes: list[dict[str, Tensor]]
) -> dict[str, Tensor]:
    """The weights after a step along each of the gradients."""
    module = nn.ParameterDict({key: nn.Parameter(value.clone()) for key, value in start.items()})
    optimizer, schedule = descent.bind(nn.Identity(), module, steps=10 * STEPS, fused=True)
    for slope in slopes:
        for key, value in slope.items():
            module[key].grad = value.clone()
        optimizer.step()
        schedule.step()
    return {key: value.detach() for key, value in module.items()}

"""The network with random weights: its maps must differ from those of the trained one."""

from copy import deepcopy

import torch

from fluoroscope.trained.loading import Network


@torch.no_grad()
def with_random_weights(network: Network, seed: int = 0) -> Network:
    """A copy of the network with the values of each weight in random order.

    The shuffled tensors keep their mean and spread, so that the signal neither dies nor explodes,
    but nothing that was learnt is left in them. A map that stays the same is a picture of the film
    and no explanation of the network.

    Args:
        network: of a trained model.
        seed: of the orders.

    Source: J. Adebayo and others, Sanity checks for saliency maps, NeurIPS (2018), the model
        parameter randomisation test.
    """
    copy = deepcopy(network)
    generator = torch.Generator().manual_seed(seed)
    for _, tensor in sorted(copy.state_dict().items()):
        if tensor.is_floating_point():
            order = torch.randperm(tensor.numel(), generator=generator).to(tensor.device)
            tensor.copy_(tensor.flatten()[order].view_as(tensor))
    return copy

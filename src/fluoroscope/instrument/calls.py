"""Which calls of a network are counted, and as which."""

from collections import Counter

from torch import nn

from fluoroscope.instrument.discovery import KNOWN, is_candidate


class Calls:
    """The calls of a network, or of its children where another method than forward runs them.

    Such a method has no end that is seen. An activation that it calls twice has two names, as in
    forward; its names begin anew where a layer with weights runs again.

    Args:
        network: whose calls are counted.
        every: in training, counts the first of so many calls of the network, and of each child.

    Attributes:
        names: calls of activations that are called alone, by name.
        training: calls in training that were counted.
    """

    def __init__(self, network: nn.Module, every: int) -> None:
        self.network, self.every = network, every
        self.names: Counter[str] = Counter()
        self.training = 0
        self._counts: Counter[nn.Module] = Counter()
        self._ran: set[nn.Module] = set()
        self._due = True

    def begin(self, module: nn.Module) -> bool:
        """Note a call; returns whether it is due. An activation is due with the layer before."""
        if self.is_layer(module):
            if module is self.network or module in self._ran:
                self._ran.clear()
                self.names.clear()
            self._ran.add(module)
            self._counts[module] += self.network.training
            self._due = (self._counts[module] - 1) % self.every == 0
        return self._due or not self.network.training

    def is_layer(self, module: nn.Module) -> bool:
        """Whether it is the network, or a child with weights that is no activation."""
        if module is self.network:
            return True
        is_activation = type(module) in KNOWN or is_candidate(module)
        return not is_activation and any(True for _ in module.parameters())

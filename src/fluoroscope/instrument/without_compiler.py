"""Run compiled parts of a network as plain PyTorch."""

from typing import Any

import torch


class WithoutCompiler:
    """Compiled modules and functions run without their compiler between enter and exit."""

    def __init__(self) -> None:
        self._stance: Any = None

    def __enter__(self) -> None:
        self.__exit__()
        if hasattr(torch.compiler, "set_stance"):
            self._stance = torch.compiler.set_stance("force_eager")
            self._stance.__enter__()

    def __exit__(self, *error: object) -> None:
        if self._stance is not None:
            self._stance.__exit__(None, None, None)
            self._stance = None

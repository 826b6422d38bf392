"""The names of timm's networks and of their weights; run this module after an update of timm:

    python -m fluoroscope.model.networks

It writes `networks.txt`, from which a misspelt name is refused without importing PyTorch.
"""

from collections.abc import Iterator
from pathlib import Path

import timm
from timm.models import get_arch_pretrained_cfgs, get_deprecated_models

LIST = Path(__file__).with_name("networks.txt")


def known(architecture: str) -> dict[str, tuple[str | None, ...]]:
    """All networks; the weight tags of one of them, and no tag (None) of each."""
    every = [*timm.list_models(), *get_deprecated_models()]
    return {name: (None, *(_tags(name) if name == architecture else ())) for name in every}


def lines() -> Iterator[str]:
    """The version, then each network with its tags."""
    yield f"timm {timm.__version__}"
    for name in sorted({*timm.list_models(), *get_deprecated_models()}):
        yield " ".join([name, *_tags(name)])


def _tags(architecture: str) -> list[str]:
    names = get_arch_pretrained_cfgs(architecture) or ()
    return sorted({tag for name in names if (tag := name.partition(".")[2])})


if __name__ == "__main__":
    LIST.write_text("\n".join(lines()) + "\n", encoding="utf-8")
    print(f"{LIST}: the networks of timm {timm.__version__}")

"""The keys of `logger` that are W&B's; other names below `logger` are loggers of the user's own."""

from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from fluoroscope.config import rules
from fluoroscope.config.schema import one_of, ruled


@dataclass
class Logger:
    mode: str = one_of("auto", "online", "offline", "off")
    project: str = ruled(rules.check_wandb_name)
    entity: str | None = ruled(rules.check_wandb_name)
    group: str | None = MISSING
    tags: list[str] = ruled(rules.check_wandb_tags)  # noqa: RUF009
    share: list[str] = one_of("paths", "host")  # noqa: RUF009


def is_added_logger(name: Any, value: Any) -> bool:
    """Whether `logger.NAME` is a logger of the user's own, or null in place of one."""
    return name not in Logger.__dataclass_fields__ and (value is None or isinstance(value, dict))

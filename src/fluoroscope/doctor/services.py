"""W&B, the hub of pretrained weights, and SLURM; none is named by its address."""

import os
import shutil
import subprocess

from fluoroscope.config.train import Train
from fluoroscope.doctor.check import BAD, NOTE, OK, Found, describe
from fluoroscope.errors import InputError, NotHereError
from fluoroscope.launch import launch_check
from fluoroscope.launch.answers import answers
from fluoroscope.launch.hub_check import check_hub
from fluoroscope.run import wandb_mode


def wandb(mode: str, wait_s: float) -> Found:
    """Whether runs are sent, from the key that is set and the server's answer."""
    chosen, why = wandb_mode.choose_mode(mode)
    reason = why.removeprefix("W&B ")
    if mode == "auto" and chosen == "offline":
        return Found(NOTE, reason, "runs are written to their folders; sync sends them later")
    if mode == "online":
        server = wandb_mode.client().setup().settings.base_url
        if not answers(server, wait_s):
            return Found(BAD, f"no answer within {wait_s:g} s", "set logger.mode=offline")
    return Found(OK, reason)


def hub(cfg: Train) -> Found:
    """Whether the weights that the run starts from can be fetched, or were before."""
    name, weights = cfg.backbone.name, cfg.backbone.weights
    if weights != "hub":
        return Found(OK, f"not needed with backbone.weights={weights}")
    try:
        check_hub(name)
    except NotHereError:
        return Found(
            BAD,
            f"{name} is neither on this machine nor to be had from the hub",
            "set backbone=lite0, whose weights are installed, or backbone.weights=file",
        )
    return Found(OK, f"{name} is there")


def slurm(wait_s: float) -> Found:
    """Whether jobs can be sent from here."""
    if shutil.which("sbatch") is None:
        return Found(OK, "not on this machine")
    try:
        answer = subprocess.run(
            ["scontrol", "ping"], capture_output=True, text=True, timeout=wait_s, check=False
        )
        is_up = " UP" in answer.stdout and not answer.returncode
    except (OSError, subprocess.SubprocessError):
        is_up = False
    if not is_up:
        return Found(NOTE, "its controller does not answer", "runs start here, but no jobs")
    return Found(OK, "its controller answers")


def processes(cfg: Train) -> Found:
    """Whether torchrun or srun has started what `trainer` asks for."""
    try:
        launch_check.check_launch(cfg.trainer, os.environ)
    except InputError as error:
        return Found(BAD, describe(error))
    return Found(OK, "started as the trainer's keys ask for")

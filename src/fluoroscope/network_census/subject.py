"""The network whose units are counted: one of timm, of a run, or of the user's own code."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fluoroscope.config.census import OWN, RUN, Job
from fluoroscope.errors import InputError, first_sentence, plural, shown
from fluoroscope.model.backbone import make_backbone
from fluoroscope.model.contracts import contract_of
from fluoroscope.own_code import imported, trusting
from fluoroscope.trained.loading import Trained, device_of, fingerprint_of, open_trained

BATCH = 32
TRIED = 2  # images: some networks cannot compute several
ANY_PX = 224  # where nothing names the size of the images


class Subject(NamedTuple):
    """A network in evaluation mode.

    Attributes:
        name: what the page calls it; no place.
        weights: where they come from, in words.
        network: whose activations are counted.
        forward: computes it from uint8 `[B, 1, S, S]`; the result does not matter.
        image_px: side S of the images.
        trained: the run that it is from, if it is.
    """

    name: str
    weights: str
    network: nn.Module
    forward: Callable[[Tensor], Any]
    image_px: int
    device: torch.device
    trained: Trained | None = None

    @property
    def parameters(self) -> int:
        """Number of the parameters."""
        return sum(p.numel() for p in self.network.parameters())

    @property
    def fingerprint(self) -> str:
        """Of the weights, 16 hexadecimal digits."""
        return fingerprint_of(dict(self.network.state_dict()))


def open_subject(job: Job) -> Subject:
    """Build the network and try it on black images.

    Raises:
        InputError: it cannot be built, or does not compute images of this size.
    """
    make = {RUN: _of_run, OWN: _of_own_code}.get(job.kind, _of_timm)
    subject = make(job)
    subject.network.eval()
    tried = min(job.batch_size or BATCH, TRIED)
    px = subject.image_px
    compute(subject, torch.zeros(tried, 1, px, px, dtype=torch.uint8))
    return subject


def _of_run(job: Job) -> Subject:
    trained = open_trained(job.network, job.accelerator)
    name = f"{trained.config.backbone.name}, head with {trained.config.head.activation}"
    network, px = trained.network, job.image_px or trained.image_px
    return Subject(name, "of a run", network, network, px, trained.device, trained)


def _of_timm(job: Job) -> Subject:
    torch.manual_seed(0)  # of layers without weights
    weights = job.backbone["weights"]
    backbone = make_backbone(job.network, **job.backbone, image_px=job.image_px)
    device = device_of(job.accelerator)
    backbone.eval().to(device)
    px = job.image_px or next(iter(backbone.trained_px), ANY_PX)
    origin = {"none": "random", "hub": "of the hub", "file": "of a file"}.get(weights, "packaged")
    return Subject(job.network, origin, backbone.network, backbone, px, device)


def _of_own_code(job: Job) -> Subject:
    with trusting([job.network]):  # the command line names it
        made = imported("model", job.network)
        if not isinstance(made, nn.Module):
            made = _call(made, job)
    if not isinstance(made, nn.Module):
        raise InputError(
            f"model={_typed(job)} must return a torch.nn.Module; got {type(made).__name__}"
        )
    contract = contract_of(job.network, job.backbone["contract"])
    assert contract is not None
    device = device_of(job.accelerator)
    mean, std = (torch.tensor(side, device=device).view(-1, 1, 1) for side in contract.of_unit)
    network = made.to(device)

    def forward(image: Tensor) -> Any:
        return network((image / 255 - mean) / std)

    px = job.image_px or next(iter(contract.sizes), ANY_PX)
    return Subject(_typed(job), "of its own code", network, forward, px, device)


def _typed(job: Job) -> str:
    """The import path as the command line has it."""
    return ":".join(job.network.rsplit(".", 1))


def _call(make: Any, job: Job) -> Any:
    if not callable(make):
        raise InputError(
            f"model={_typed(job)} must be a class or function that returns a network; got "
            f"{type(make).__name__}"
        )
    try:
        return make(**job.backbone.get("args", {}))
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {first_sentence(error)}"
        arguments = shown(job.backbone.get("args", {}))
        raise InputError(
            f"model={_typed(job)} cannot be called with {arguments} ({reason}); its arguments are "
            "backbone.args"
        ) from None


def compute(subject: Subject, image: Tensor) -> None:
    """Call the network on uint8 images `[B, 1, S, S]`.

    Raises:
        InputError: it raises an error of any kind.
    """
    try:
        with torch.no_grad():
            subject.forward(image.to(subject.device))
    except Exception as error:  # of any network
        px, keys = subject.image_px, "data.image_px or data.batch_size"
        if subject.trained is None:
            keys += ", or set what it expects in backbone.contract"
        raise InputError(
            f"model: {subject.name} cannot compute {plural(len(image), 'image')} of {px} x {px} "
            f"pixels ({type(error).__name__}: {first_sentence(error)}); change {keys}"
        ) from None

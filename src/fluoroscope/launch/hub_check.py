"""Whether a hub can provide pretrained weights; light, and asked once within a few seconds."""

import urllib.error
import urllib.request
from functools import cache
from pathlib import Path

from fluoroscope.commands import called
from fluoroscope.errors import NotHereError
from fluoroscope.launch.answers import in_time

TIMEOUT_S = 4.0
OUTSIDE = "hf-hub:"  # before a repository that timm does not list
SMALL = "backbone=lite0"  # whose weights come in a package
FILES = ("model.safetensors", "pytorch_model.bin")  # that timm asks for


@cache
def check_hub(name: str, small: str = SMALL) -> None:
    """Refuse weights that neither the hub nor its cache on this machine can provide.

    Args:
        name: a model name of timm, or hf-hub:OWNER/NAME.
        small: how the command names the network whose weights are installed.

    Raises:
        NotHereError: names the other sources of weights.
    """
    from huggingface_hub import constants

    cache, outside = Path(constants.HF_HUB_CACHE), name.startswith(OUTSIDE)
    repository = name.removeprefix(OUTSIDE).partition("@")[0] if outside else f"timm/{name}"
    folders = [f"models--{repository.replace('/', '--')}"]
    if not outside:  # timm takes some from other owners, and adds a tag to a name without one
        folders = [f"models--*--{name}", f"models--*--{name}.*"]
    if any(any(cache.glob(f"{folder}/snapshots/*/*")) for folder in folders):
        return
    if not constants.is_offline_mode() and _is_provided(repository, constants.ENDPOINT):
        return
    fetched = f"that {called('prepare')} weights={name} fetched on another machine"
    raise NotHereError(
        f"backbone.weights=hub: the hub {constants.ENDPOINT} does not provide {name} within "
        f"{TIMEOUT_S:.0f} s, and its cache on this machine does not hold it; set {small} (a "
        "small network whose weights are installed), or backbone.weights=file backbone.file=FILE "
        f"with a file {'of its weights' if outside else fetched}, or backbone.weights=none"
    )


def _is_provided(repository: str, endpoint: str) -> bool:
    """Whether the hub has this repository, or at least answers as a hub does.

    timm takes the weights of a few networks from repositories of other owners.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    def ask() -> bool:
        for file in FILES:
            try:
                get_hf_file_metadata(hf_hub_url(repository, file), timeout=TIMEOUT_S)
            except Exception:  # the client raises its own errors, its library's and the system's
                continue
            return True
        try:
            urllib.request.urlopen(endpoint, timeout=TIMEOUT_S).close()
        except urllib.error.HTTPError as error:
            return error.code not in (404, 407) and error.code < 500  # else a proxy answers
        except (OSError, ValueError):
            return False
        return True

    return in_time(ask, TIMEOUT_S)  # the client alone would try again and again

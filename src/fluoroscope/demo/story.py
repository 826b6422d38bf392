"""Serve the page until Ctrl-C: the story of the command."""

import socket
import threading
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import uvicorn
from markupsafe import Markup

from fluoroscope.config.demo import Demo
from fluoroscope.console import make_console
from fluoroscope.demo.film import Examiner
from fluoroscope.demo.server import make_app
from fluoroscope.errors import InputError
from fluoroscope.prediction.predictor import Predictor, load
from fluoroscope.reporting.rendering import css, render

TEMPLATES = Path(__file__).parent / "templates"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
UNCALIBRATED = ", not calibrated: a probability of 0.8 need not come true in 8 of 10 films"
END_S = 5.0  # given to a film that is being read when the command ends


def main(cfg: Demo) -> None:
    """Entry of `scripts/demo.py`.

    Raises:
        InputError: the model cannot be opened, or the port cannot be used.
    """
    predictor = load(cfg.checkpoint, cfg.point, cfg.trainer.accelerator)
    listening = listen(cfg.host, cfg.port)
    app = make_app(
        page=page(predictor, cfg.max_mib),
        css=css(TEMPLATES / "demo.css"),
        answer=partial(answer, Examiner(predictor)),
        hosts=names(cfg.host, listening.getsockname()[0]),
        max_bytes=cfg.max_mib * 2**20,
    )
    _tell(cfg, listening)
    serve(app, listening)


def listen(host: str, port: int) -> socket.socket:
    """A socket at this address.

    Raises:
        InputError: the address is not one of this machine, or the port is taken.
    """
    try:
        family, kind, number, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, number)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(place)
        listening.listen()
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", "") or "not a name"
        raise InputError(
            f"cannot serve at host={host} port={port} ({reason}); give another port, or 0 for any "
            "free one"
        ) from None
    return listening


def names(host: str, address: str) -> set[str]:
    """The names by which a request may call the page; none if it is served at all addresses.

    Args:
        host: as the user gave it.
        address: the one that it stands for.
    """
    return set() if ip_address(address).is_unspecified else {*LOOPBACK, host.lower(), address}


def page(predictor: Predictor, max_mib: int) -> str:
    """The page before the first film."""
    trained = predictor.trained
    facts = {
        "Findings": ", ".join(predictor.labels),
        "Network": f"{trained.config.backbone.name} at {trained.image_px} px",
        "Head": f"{trained.config.head.width} units, {trained.config.head.activation}",
        "Weights": trained.fingerprint,
        "Probabilities": "calibrated on validation" if predictor.calibration else "not calibrated",
    }
    given = {"facts": facts.items(), "labels": predictor.labels, "max_mib": max_mib}
    return render(TEMPLATES / "page.html", {}, autoescape=True, **given)


def answer(examiner: Examiner, data: bytes, label: str | None) -> str:
    """The part of the page that shows one film."""
    film = examiner.examine(data, label)
    known = examiner.predictor.calibration is not None
    caption = "Probability of each finding" + ("" if known else UNCALIBRATED)
    return render(
        TEMPLATES / "film.html", {"drawing": Markup}, autoescape=True, film=film, caption=caption
    )


def serve(app: Any, listening: socket.socket) -> None:
    """Serve in a thread, so that this process ends on signals as every command does."""
    # Its own configuration of logging would close the handlers of other libraries.
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        lifespan="off",
        ws="none",
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(1.0)
    finally:
        server.should_exit = True
        thread.join(END_S)


def _tell(cfg: Demo, listening: socket.socket) -> None:
    console = make_console()
    address, port = listening.getsockname()[:2]
    known = "localhost" if ip_address(address).is_unspecified else address
    console.print(f"Open http://{f'[{known}]' if ':' in known else known}:{port} in a browser")
    if not ip_address(address).is_loopback:
        console.print(
            f"warning: host={cfg.host} lets everyone who reaches this machine use the page, "
            "without a password and without encryption"
        )
    console.print("This is not a medical device: do not use it to diagnose or to treat anybody")
    console.print("Ctrl-C ends the page")

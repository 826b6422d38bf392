"""The sentences of the probes, for the console and the page."""

from fluoroscope.probes.changes import CHANGES

MACRO = "macro"  # the mean over the judged labels, in place of a label
NO_SCORE = "the score on the unchanged images is not above chance, so no probe can decide"
VIEWS = "it tells the views apart, which goes with the label here"


def sentence(label: str, probe: str, share: float, auroc: float, unchanged: float) -> str:
    """What a probe that is called out found, without a full stop.

    Args:
        share: of the score above chance that is kept (without the lungs) or lost.
        auroc, unchanged: on the changed and on the unchanged images.

    >>> sentence("Mass", "corners_masked", 0.875, 0.55, 0.9)
    'Mass: the model loses 88 % of its score without the four corners (AUROC 0.55, was 0.90; 0.5 \
is chance): it reads markers, text or devices there'
    """
    who = "mean of the labels" if label == MACRO else label
    does = "keeps" if probe == "lungs_hidden" else "loses"
    numbers = f"AUROC {auroc:.2f}, was {unchanged:.2f}; 0.5 is chance"
    part = f"{100 * share:.0f} % of its score"
    return f"{who}: the model {does} {part} {title(probe)} ({numbers}): {_meaning(probe)}"


def title(probe: str) -> str:
    """What is done to the images."""
    return "among films of one view" if probe == "within_views" else CHANGES[probe].title


def _meaning(probe: str) -> str:
    return VIEWS if probe == "within_views" else CHANGES[probe].means

"""Every metric of the diagnostics: its key, when it is taken, what it means and how it is shown.

A metric is declared here once. The monitor logs these keys, the W&B workspace draws a panel for
each, the report takes its columns from them, and the tables of the documentation repeat the
meanings. Nothing heavy is imported, so every part of the package may read this file.
"""

from dataclasses import dataclass
from typing import Literal

Window = Literal["start", "train", "val"]
START: Window = "start"  # the validation images before the first optimizer step
WINDOWS: tuple[Window, Window] = ("train", "val")  # those of every epoch
UNITS, GRAD, LAYERS = "units", "grad", "layers"  # the sections that begin the keys

SHARE, NORM, RATIO, STEP_RATIO = ".1%", ".2g", ".2f", ".1e"
OF_UNITS, OF_IMAGES, OF_PAIRS = "share of units", "share of images", "share of image-unit pairs"


@dataclass(frozen=True)
class Metric:
    """A number that is logged.

    Attributes:
        section: `units` (one key for each of `windows`) or `grad`.
        name: the rest of the key.
        when: `window` is once before the first optimizer step, once per training epoch and once per
            validation, during which the weights are constant. `step` is at every logged optimizer
            step, after the gradients are averaged across processes and unscaled, before clipping.
        meaning: one sentence.
        panel: title of its panel in the W&B workspace; metrics with the same title share one.
        measure: what the number is, as the label of an axis.
        form: how the number is written.
        column: its name in the report's `table.csv`; "" if the report leaves it out.
        title: of that column on the page.
        windows: of a metric of `units`; a column shows the last one.
    """

    section: str
    name: str
    when: Literal["window", "step"]
    meaning: str
    panel: str
    measure: str
    form: str = SHARE
    column: str = ""
    title: str = ""
    windows: tuple[Window, ...] = (START, *WINDOWS)

    def key(self, window: Window = "val") -> str:
        """The key in the logs; `window` matters only in the section `units`.

        >>> DEAD.key("train"), FEATURES_L2.key()
        ('units/train/dead_frac', 'grad/features_l2')
        """
        if self.section != UNITS:
            return f"{GRAD}/{self.name}"
        return f"{UNITS}/{window if window in self.windows else self.windows[-1]}/{self.name}"

    @property
    def pattern(self) -> str:
        """The keys of all windows in one string, as tables show them.

        >>> DEAD.pattern, GRAD_DORMANT.pattern
        ('units/{start,train,val}/dead_frac', 'units/train/grad_dormant_frac')
        """
        windows = ",".join(self.windows)
        shown = f"{{{windows}}}" if len(self.windows) > 1 else windows
        return f"{UNITS}/{shown}/{self.name}" if self.section == UNITS else self.key()

    @property
    def place(self) -> tuple[str, ...]:
        """The keys that lead to the last value in `result.json`.

        >>> DEAD.place, FEATURES_L2.place
        (('units', 'val/dead_frac'), ('grad', 'last', 'features_l2'))
        """
        section, _, rest = self.key().partition("/")
        return (UNITS, rest) if section == UNITS else (GRAD, "last", rest)


DEAD = Metric(
    *(UNITS, "dead_frac", "window"),
    "Share of units whose gate is closed on every image of the window.",
    *("Dead units", OF_UNITS, SHARE, "dead", "Dead"),
)
LINEAR = Metric(
    *(UNITS, "linear_frac", "window"),
    "Share of units that are not dead and linear on these images (corr(z, a)^2 > 0.99).",
    *("Linear units", OF_UNITS, SHARE, "linear", "Linear"),
)
NONLINEAR = Metric(
    *(UNITS, "nonlinear_frac", "window"),
    "Share of units that are neither dead nor linear.",
    *("Nonlinear units", OF_UNITS, SHARE, "nonlinear", "Nonlinear"),
)
BLACKOUT = Metric(
    *(UNITS, "blackout_frac", "window"),
    "Share of images on which the gates of all units are closed.",
    *("Blackout: images that close every gate", OF_IMAGES, SHARE, "blackout", ""),
)
BLACKOUT_EXPECTED = Metric(
    *(UNITS, "blackout_expected_frac", "window"),
    "Blackout share of independent units: the product over units of the share of closed images.",
    *("Blackout share that independent units would have", OF_IMAGES),
)
NEWLY_DEAD = Metric(
    *(UNITS, "newly_dead_frac", "window"),
    "Share of units that are dead now and were not in the previous window.",
    *("Units that died or revived since the previous window", OF_UNITS),
    windows=WINDOWS,
)
REVIVED = Metric(
    *(UNITS, "revived_frac", "window"),
    "Share of units that were dead in the previous window and are not now.",
    *("Units that died or revived since the previous window", OF_UNITS),
    windows=WINDOWS,
)
GATE_OPEN = Metric(
    *(UNITS, "gate_open_frac", "window"),
    "Share of image-unit pairs with an open gate.",
    *("Open gates", OF_PAIRS, SHARE, "gate_open", "Gates open"),
)
ZERO = Metric(
    *(UNITS, "zero_frac", "window"),
    "Share of image-unit pairs with an activation of exactly zero.",
    *("Activations of zero", OF_PAIRS),
)
NONFINITE = Metric(
    *(UNITS, "nonfinite_frac", "window"),
    "Share of image-unit pairs that are NaN or infinite; other numbers leave them out.",
    *("Pairs that are not finite", OF_PAIRS),
)
RARE = Metric(
    *(UNITS, "rare_frac", "window"),
    "Share of units that are open on 1 to 7 images.",
    *("Units open on 1 to 7 images; detection limit of dead units", "share"),
)
DEAD_BOUND = Metric(
    *(UNITS, "dead_bound_frac", "window"),
    "Detection limit: a unit open on a smaller share of images may look dead (95 % confidence).",
    *("Units open on 1 to 7 images; detection limit of dead units", "share"),
)
DEAD_EXPECTED = Metric(
    *(UNITS, "dead_expected_frac", "window"),
    "Share of dead ReLU units that the features' geometry alone predicts for random weights.",
    "Dead ReLU units expected from the features' geometry",
    *(OF_UNITS, SHARE, "dead_expected", "Dead, expected"),
)
FEATURE_GAMMA = Metric(
    *(UNITS, "feature_gamma", "window"),
    "Size of the features' mean relative to their spread: norm(mean f) / sqrt(tr cov f).",
    *("Mean of the features relative to their spread (gamma)", "gamma", RATIO),
)
DORMANT_0025 = Metric(
    *(UNITS, "dormant_frac_0025", "window"),
    "Share of units whose mean abs a is at most 0.025 of the layer's mean.",
    *("Dormant units (Sokar et al.)", OF_UNITS),
)
DORMANT_01 = Metric(
    *(UNITS, "dormant_frac_01", "window"),
    "Share of units whose mean abs a is at most 0.1 of the layer's mean.",
    *("Dormant units (Sokar et al.)", OF_UNITS),
)
GRAD_DORMANT = Metric(
    *(UNITS, "grad_dormant_frac", "window"),
    "Share of units whose mean abs dL/dz is at most 0.01 of the layer's mean (GraMa).",
    "Units that learn nothing, by their gradient (GraMa)",
    *(OF_UNITS, SHARE, "grad_dormant", "Dormant, gradient"),
    windows=("train",),
)
EFFECTIVE_RANK = Metric(
    *(UNITS, "effective_rank", "window"),
    "Exponential of the entropy of the normalised singular values of a.",
    *("Effective rank of the activations", "directions", RATIO),
)
BN_TAIL_GAIN = Metric(
    *(UNITS, "bn_tail_gain_max", "window"),
    "Largest factor by which batch norm scales a unit at evaluation.",
    *("Largest gain of batch norm", "gain", NORM),
)
FEATURES_ZERO = Metric(
    *(GRAD, "features_zero_frac", "window"),
    "Share of labelled images that send exactly no gradient to the features (dL/df = 0).",
    *("Images that send no gradient", OF_IMAGES, SHARE, "features_zero", "No gradient"),
)
STARVED = Metric(
    *(GRAD, "starved_frac", "window"),
    "Share of units whose weights in head.dense got exactly no gradient at any step.",
    *("Units without gradient in an epoch", OF_UNITS, SHARE, "starved", "Starved"),
)
FEATURES_L2 = Metric(
    *(GRAD, "features_l2", "step"),
    "L2 norm of the gradient of the features, dL/df, over the accumulated batch.",
    "Gradient that reaches the backbone",
    *("L2 norm", NORM, "features_l2", "Grad. features"),
)
GATE_TRANSMISSION = Metric(
    *(GRAD, "gate_transmission", "step"),
    "Norm of the feature gradient with the gate, divided by the norm without it.",
    "Share of the gradient's norm that passes the gates",
    *("norm with / without gates", RATIO, "gate_transmission", "Transmission"),
)
GATE_COSINE = Metric(
    *(GRAD, "gate_cosine", "step"),
    "Cosine between the feature gradient with the gate and without it.",
    "Direction of the gradient with and without the gates",
    *("cosine", RATIO, "gate_cosine", "Gate cosine"),
)
UPDATE_RATIO = Metric(
    *(GRAD, "update_ratio", "step"),
    "Norm of the optimizer's step of head.dense.weight, divided by the norm of the weight.",
    "Step relative to the weight, head.dense",
    *("norm of step / weight", STEP_RATIO, "update_ratio", "Update ratio"),
)
L2_HEAD_DENSE = Metric(
    *(GRAD, "l2/head_dense", "step"),
    "L2 norm of the gradient of head.dense.",
    *("Gradient of head.dense", "L2 norm", NORM, "grad_head_dense", "Grad. head.dense"),
)
L2_HEAD_NORM = Metric(
    *(GRAD, "l2/head_norm", "step"),
    "L2 norm of the gradient of head.norm; NaN if the head has no norm.",
    *("Gradient of head.norm", "L2 norm", NORM),
)
L2_HEAD_OUT = Metric(
    *(GRAD, "l2/head_out", "step"),
    "L2 norm of the gradient of head.out.",
    *("Gradient of head.out", "L2 norm", NORM),
)
L2_HEAD = Metric(
    *(GRAD, "l2/head", "step"),
    "L2 norm of the gradient of the whole head.",
    *("Gradient of the head", "L2 norm", NORM),
)
L2_BACKBONE = Metric(
    *(GRAD, "l2/backbone", "step"),
    "L2 norm of the gradient of the backbone; NaN if the backbone is frozen.",
    *("Gradient of the backbone", "L2 norm", NORM, "grad_backbone", "Grad. backbone"),
)
L2_TOTAL = Metric(
    *(GRAD, "l2/total", "step"),
    "L2 norm of the whole accumulated gradient.",
    *("Whole gradient, before and after clipping", "L2 norm", NORM),
)
L2_TOTAL_CLIPPED = Metric(
    *(GRAD, "l2/total_clipped", "step"),
    "L2 norm of the whole gradient after clipping, as the optimizer used it.",
    *("Whole gradient, before and after clipping", "L2 norm", NORM),
)

METRICS: tuple[Metric, ...] = tuple(v for v in list(vars().values()) if isinstance(v, Metric))

# For each watched layer, `layers/{train,val}/<layer>/<name>` is logged for these metrics.
LAYER_METRICS = (DEAD, LINEAR, NONLINEAR, GATE_OPEN)
DEAD_MAX = "val/dead_max"  # in `units` of `result.json`: the largest dead share of any epoch


def layer_key(window: Window, layer: str, metric: Metric) -> str:
    """The key of a metric of a watched layer.

    >>> layer_key("val", "backbone.act1", DEAD)
    'layers/val/backbone.act1/dead_frac'
    """
    return f"{LAYERS}/{window}/{layer}/{metric.name}"


def table(metrics: tuple[Metric, ...] = METRICS) -> str:
    """The metrics as a table in Markdown: key, when, meaning."""
    rows = [f"| `{m.pattern}` | {m.when} | {m.meaning} |" for m in metrics]
    return "\n".join(["| key | when | meaning |", "| --- | --- | --- |", *rows])

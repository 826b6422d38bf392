"""Blackouts in proportion: which of them last, and what the width of the head alone explains."""

from dataclasses import dataclass

import pandas as pd

from fluoroscope.reporting.comparison import Comparison, SettingTable

REMEDIES = "head.activation=leaky_relu, a smaller optimizer.lr, or head.order=norm-activation"


@dataclass(frozen=True)
class Blackouts:
    """The blackouts of the reference's runs under one setting; shares are of images.

    Attributes:
        table: the setting.
        runs: number of runs whose units were measured; at least one.
        hit: number of runs in which some window had a blackout.
        worst: the largest share in any window of any run.
        lasting: mean over the runs of the share that lasts, see `columns.lasting`.
        end: mean share of the last validation.
        expected: what geometry alone predicts, see the column `blackout_expected`.
        from_start: whether that comes from a census at the start, not from the width.
        width: number of units.
        share: of the rule, `blackout_share`.
    """

    table: SettingTable
    runs: int
    hit: int
    worst: float
    lasting: float
    end: float
    expected: float
    from_start: bool
    width: int
    share: float

    @property
    def limit(self) -> float:
        """A lasting share must be above it: `share`, and the 2^-width of independent units that are
        open on half of the images, whichever is larger.
        """
        return max(self.share, by_width(self.width))

    @property
    def last(self) -> bool:
        """Whether they count for the decision rule; else they are an alarm."""
        return self.lasting > self.limit


def by_width(width: int) -> float:
    """Share of images that close all of `width` independent units, each open on half of them."""
    return 2.0**-width


def blackouts(comparison: Comparison) -> list[Blackouts]:
    """One entry for each setting with measured reference runs, the largest lasting share first."""
    found = []
    for table in comparison.settings:
        runs = table.by_run[table.by_run["activation"] == comparison.reference]
        runs = runs.dropna(subset="blackout_max")
        if len(runs):
            found.append(_of_setting(table, runs, comparison))
    return sorted(found, key=lambda b: -b.lasting)


def _of_setting(table: SettingTable, runs: pd.DataFrame, comparison: Comparison) -> Blackouts:
    return Blackouts(
        table,
        runs=len(runs),
        hit=int((runs["blackout_max"] > 0).sum()),
        worst=float(runs["blackout_max"].max()),
        lasting=float(runs["blackout_lasting"].mean()),
        end=float(runs["blackout"].mean()),
        expected=float(runs["blackout_expected"].mean()),
        from_start=bool(runs["dead_start"].notna().all()),
        width=int(table.runs[0].config["head"]["width"]),
        share=comparison.rule.blackout_share,
    )


def lasts(b: Blackouts, name: str, tuned: bool) -> str:
    """The verdict on blackouts that last, in one sentence.

    Args:
        tuned: whether the setting is one at which the reference validates best.
    """
    place = f" at {b.table.label}" if b.table.label else ""
    place += "" if tuned else " (not the learning rate at which it validates best)"
    return (
        f"{name} is destructive here: {percent(b.lasting)} of the images close every unit and send "
        f"no gradient back, in most epochs or at the end{place} (mean of {b.runs} runs; "
        f"{geometry(b)}); {_score(b, name)}."
    )


def alarm(dark: list[Blackouts], name: str) -> list[str]:
    """At most one line: what to do against blackouts, and why they do not decide if they do not."""
    hit, runs, worst = _totals(dark)
    if not hit:
        return []
    if dark[0].last:
        return [f"Against blackouts: {REMEDIES}."]
    return [
        f"Alarm: in {hit} of {runs} {name} runs an image closed every unit in some window (up to "
        f"{percent(worst)} of its images). It decides nothing, since at most "
        f"{percent(dark[0].lasting)} of the images did in most epochs or at the end, and more than "
        f"{percent(dark[0].limit)} (blackout_share) must; {geometry(dark[0])}. Against blackouts: "
        f"{REMEDIES}."
    ]


def none_lasts(dark: list[Blackouts]) -> str:
    """That no blackout decides, as the part of a sentence."""
    hit, runs, worst = _totals(dark)
    if not hit:
        return f"no image was blacked out (0 of {runs} runs)"
    return f"no blackout lasted (some in {hit} of {runs} runs, up to {percent(worst)} of a window)"


def percent(share: float) -> str:
    """A share with two digits where it is small.

    >>> percent(0.125), percent(0.0039), percent(2**-40), percent(0.0)
    ('12.5%', '0.39%', 'less than 0.01%', '0%')
    """
    if share == 0:
        return "0%"
    if share < 1e-4:
        return "less than 0.01%"
    return f"{share:.2%}" if share < 0.01 else f"{share:.1%}"


def geometry(b: Blackouts) -> str:
    """What geometry alone predicts, and by which rule."""
    how = f"2^-{b.width}: independent units, each open on half of the images"
    if b.from_start:
        how = f"the product over its {b.width} units of the share that closes each, at the start"
    return f"geometry alone predicts {percent(b.expected)} ({how})"


def _totals(dark: list[Blackouts]) -> tuple[int, int, float]:
    worst = max((b.worst for b in dark), default=0.0)
    return sum(b.hit for b in dark), sum(b.runs for b in dark), worst


def _score(b: Blackouts, name: str) -> str:
    rows = b.table.rows[b.table.rows["finding"] != "reference"]
    better = rows[rows["finding"] == "better"]
    if len(better):
        return f"the score suffers: better than {name} is {', '.join(better['activation'])}"
    if rows.empty:
        return "no other activation shows whether the score suffers"
    return "that the score suffers is not shown: no other activation was found to be better there"

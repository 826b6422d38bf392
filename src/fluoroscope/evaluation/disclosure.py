"""Which groups of images must not show how many of them are positive.

The count of a few patients tells the label of somebody. It is also known if it is what remains of
the count of all images when those of the other groups are taken off.
"""

import numpy as np

from fluoroscope.evaluation.attributes import FEWEST


def hidden_groups(group: np.ndarray, patient: np.ndarray, count: int) -> set[int]:
    """Groups of few patients and, if these are few together, the next smallest groups.

    Images of an unknown group count among those that remain.

    Args:
        group: [N], numbers from 0 to count - 1; -1 is unknown.
        patient: [N].
        count: of the groups.
    """
    people = {g: set(patient[group == g].tolist()) for g in range(-1, count)}
    rising = sorted(range(count), key=lambda g: len(people[g]))
    hidden = {g for g in rising if len(people[g]) < FEWEST}
    rest = people[-1].union(*(people[g] for g in hidden))
    for g in rising:
        if g not in hidden and 0 < len(rest) < FEWEST:
            hidden.add(g)
            rest |= people[g]
    return hidden

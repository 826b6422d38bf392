import numpy as np
import pytest

from fluoroscope.export.speed import BATCHES, ROUNDS, SECONDS, measure

IMAGES = np.zeros((5, 1, 7, 7), np.uint8)


class Machine:
    """Runs that take so many seconds, on a clock that they alone move."""

    def __init__(self):
        self.now, self.calls = 0.0, []

    def takes(self, name, *seconds):
        waits = iter(seconds)
        last = seconds[-1]

        def run(images):
            self.calls.append((name, len(images)))
            self.now += next(waits, last)

        return run

    def clock(self):
        return self.now


def test_the_rates_are_images_per_second():
    machine = Machine()
    speeds = measure(machine.takes("a", 0.5), machine.takes("b", 0.25), IMAGES, machine.clock)
    assert [(s.batch, s.checkpoint, s.exported) for s in speeds] == [(1, 2, 4), (16, 32, 64)]


def test_a_slow_first_call_and_one_outlier_do_not_count():
    machine = Machine()
    first = machine.takes("a", 60, 0.5, 0.5, 40, 0.5, 0.5)
    speed = measure(first, machine.takes("b", 0.5), IMAGES, machine.clock)[0]
    assert speed.checkpoint == pytest.approx(2)


def test_both_run_in_turn_on_the_same_number_of_images():
    machine = Machine()
    measure(machine.takes("a", 9.0), machine.takes("b", 9.0), IMAGES, machine.clock)
    rounds = [(name, size) for size in BATCHES for _ in range(1 + ROUNDS[0]) for name in "ab"]
    assert machine.calls == rounds


def test_fast_files_are_not_run_without_end():
    machine = Machine()
    measure(machine.takes("a", 1e-5), machine.takes("b", 1e-5), IMAGES, machine.clock)
    assert len(machine.calls) == 2 * len(BATCHES) * (1 + ROUNDS[1])
    assert SECONDS < 10

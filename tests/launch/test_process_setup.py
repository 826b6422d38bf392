"""The set-up of a process: which advice of Lightning a user does not read."""

import inspect
import warnings

from pytorch_lightning.loops import fit_loop

from fluoroscope.launch.process_setup import quiet_lightning


def test_a_short_epoch_is_no_reason_for_advice_on_the_logging_interval():
    """The numbers of an epoch are written at its end, however few its steps are."""
    said = "is smaller than the logging interval"
    assert said in " ".join(inspect.getsource(fit_loop).split())
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        quiet_lightning()
        warnings.warn(f"The number of training batches (1) {said} Trainer(...=10).", stacklevel=1)
        warnings.warn("another", stacklevel=1)
    assert [str(one.message) for one in heard] == ["another"]

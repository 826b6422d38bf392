"""Whether a call is still running; Ctrl-C ends a forward pass without its last hooks."""

import sys
import threading
from types import FrameType


def is_running(frame: FrameType, thread: int) -> bool:
    """Whether this frame is on the stack of the present thread, or belongs to another live one."""
    if thread != threading.get_ident():
        return thread in sys._current_frames()
    here: FrameType | None = sys._getframe()
    while here is not None and here is not frame:
        here = here.f_back
    return here is not None

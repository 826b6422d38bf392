"""No network but this machine's own, in every Python process that has this folder on its path.

Who tries is written to the file that AIRGAP_LOG names, and is refused; with AIRGAP_HANGS set, it
waits for ever, as behind a firewall that drops what it gets.
"""

import os
import socket
import sys
import time

OWN = ("localhost", "127.0.0.1", "::1", "0.0.0.0", "", None, socket.gethostname())


def _refuse(target):
    with open(os.environ["AIRGAP_LOG"], "a") as log:
        log.write(f"{target} by {' '.join(sys.argv[:3])}\n")
    while "AIRGAP_HANGS" in os.environ:
        time.sleep(1)
    raise OSError(101, "Network is unreachable")


def _guarded(function):
    def call(self, address, *rest):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in OWN:
            _refuse(address)
        return function(self, address, *rest)

    return call


def _looked_up(host, *rest, **keys):
    if (host.decode() if isinstance(host, bytes) else host) not in OWN:
        _refuse(host)
    return _look_up(host, *rest, **keys)


_look_up = socket.getaddrinfo
socket.getaddrinfo = _looked_up
socket.socket.connect = _guarded(socket.socket.connect)
socket.socket.connect_ex = _guarded(socket.socket.connect_ex)

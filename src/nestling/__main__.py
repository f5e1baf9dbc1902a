"""The program ``nestling``, also started by ``python -m nestling``.

It is ready for Ctrl-C before it imports the command line, which takes long enough to be interrupted.
"""

from __future__ import annotations

import os
import signal
from types import FrameType


def main() -> None:
    """Run the command line. Ctrl-C while it is imported ends in one line, as later."""
    is_ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # else a shell put Ctrl-C aside
    if is_ours:
        signal.signal(signal.SIGINT, _stop)
    from nestling.cli import main as run

    if is_ours:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()


def _stop(number: int, frame: FrameType | None) -> None:
    """End at once: an exception in the middle of an import may be lost or become another one."""
    os.write(2, b"nestling: interrupted: nothing was begun\n")
    os._exit(128 + number)


if __name__ == "__main__":
    main()

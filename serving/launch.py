"""Becomes another program that dies with the one that started it: `launch.py PARENT_PID PROGRAM ARGUMENT…`.

A small program of its own, because `preexec_fn` is unsafe in a process with threads.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Run the program, in a process that dies with its parent."""
    program = sys.argv[2:]
    end_with(int(sys.argv[1]))
    try:
        os.execvp(program[0], program)
    except OSError as error:
        print(f"{program[0]}: {error.strerror}", file=sys.stderr)
        sys.exit(127)


def end_with(parent: int) -> None:
    """Ask the kernel for SIGKILL at the parent's death; exit where it is dead already."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the parent is dead")


if __name__ == "__main__":
    main()

"""Selections in processes that die: all libraries are imported once, then every call is a fork of its own.

killed_selections.py kill ATTEMPTS SECONDS SEED --separator-- FLAGS...     killed so often, then run to its end
killed_selections.py at-once --separator-- FLAGS... --separator-- FLAGS...    all at the same time
"""

import os
import random
import signal
import sys
import time


def start(flags):
    """A child that runs `mecellem select FLAGS`."""
    child = os.fork()
    if child:
        return child
    from mecellem.cli import main

    os.setpgrp()
    code = 1
    try:
        code = main(["select", *flags])
    finally:
        sys.stdout.flush()
        os._exit(code)


def finish(child):
    """Its exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(mode, *words):
    import mteb  # noqa: F401
    import sentence_transformers  # noqa: F401
    import torch

    import conversion.export  # noqa: F401

    torch.set_num_threads(1)  # a fork must not inherit a pool of threads
    calls = " ".join(words).split("--separator--")
    flags = [call.split() for call in calls]
    if mode == "at-once":
        return max(finish(child) for child in [start(call) for call in flags[1:]])
    attempts, most, seed = int(flags[0][0]), float(flags[0][1]), int(flags[0][2])
    draw = random.Random(seed)
    for _ in range(attempts):
        child = start(flags[1])
        time.sleep(draw.uniform(0.2, most))
        os.kill(child, signal.SIGKILL)
        print("killed" if finish(child) < 0 else "was done", flush=True)
    return finish(start(flags[1]))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

"""Run a command of this room (`contrastive`, `mining`) in a process of its own, alone or as ranks of torchrun."""

import os
import subprocess
import sys
from pathlib import Path


def command(*words, ranks=1):
    """What to start. torchrun runs this very file, which is the command."""
    own = [str(Path(__file__).resolve()), *map(str, words)]
    if ranks == 1:
        return [sys.executable, *own]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    return [*launcher, *own]


def environment():
    """One thread a process: sums have one order, and cores are shared."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}


def post_train(*words, ranks=1, timeout=300):
    """The finished process; its output when it failed is the failure's message."""
    done = subprocess.run(command(*words, ranks=ranks), env=environment(), capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done


if __name__ == "__main__":
    import importlib

    sys.exit(importlib.import_module(f"post_training.{sys.argv[1]}").main(sys.argv[2:]))

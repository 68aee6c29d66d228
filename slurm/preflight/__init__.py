"""Are these nodes fit to train? What every rank measures, and what its node is judged by."""

from slurm.preflight.command import main as main

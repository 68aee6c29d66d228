"""How fast a recipe trains on this cluster: layouts x batches x precisions x nodes, measured, and the rest predicted."""

from slurm.bench.command import main as main

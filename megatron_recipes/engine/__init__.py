"""The training loop and what it stands on: runtime, parallel set-up, optimizer, schedule, checkpoints, metrics."""

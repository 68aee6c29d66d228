"""The distributed optimizer's state for a checkpoint, with a fault of Megatron-Core (0.16.1 to 0.19.2) kept out.

In its `fully_reshardable` form Megatron-Core joins the buckets of a gradient buffer without the padding at their ends, but
cuts parameters out of the result at places that count it. With more than one bucket (from 40 million parameters on) and
any padding (a bucket that does not divide by lcm(data-parallel ranks, 128)) every parameter behind the first padding is
saved with its neighbour's values; training resumed from it diverges at its first update.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def optimizer_state(optimizer: Any, model_state: dict[str, Any], metadata: dict[str, Any], is_loading: bool) -> Any:
    """`optimizer.sharded_state_dict` in which every parameter has its own state."""
    with _buckets_with_padding(optimizer):
        return optimizer.sharded_state_dict(model_state, is_loading=is_loading, metadata=metadata)


@contextmanager
def _buckets_with_padding(optimizer: Any) -> Iterator[None]:
    """Count the padding as part of the buckets: then both sides of the fault mean the same places."""
    parts = getattr(optimizer, "chained_optimizers", [optimizer])
    buffers = [buffer for part in parts for buffer in getattr(part, "buffers", [])]
    sizes = [(owner, owner.numel_unpadded) for buffer in buffers for owner in (buffer, *buffer.buckets)]
    try:
        for buffer in buffers:
            buffer.numel_unpadded = buffer.numel
            for bucket in buffer.buckets:
                bucket.numel_unpadded = bucket.grad_data.numel()
        yield
    finally:
        for owner, size in sizes:
            owner.numel_unpadded = size

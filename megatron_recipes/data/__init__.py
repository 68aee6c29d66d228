"""From `.bin/.idx` to training batches: reading, packing, masking."""

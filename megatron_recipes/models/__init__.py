"""Megatron-Core modules and layer specs."""

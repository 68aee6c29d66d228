"""Text to tokens. Imports neither torch nor megatron, so that it runs on a login node."""

"""Data sets as tensors, and their batches."""

"""Benchmark of knowledge-distillation methods: which method is better, and by how much."""

__version__ = "0.1.0"

NUMERICS = 1
"""Version of everything but settings that affects results; raised when results can change."""

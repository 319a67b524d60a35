"""kdbench: which knowledge-distillation method really is better, and by how much."""

__version__ = "0.1.0"

NUMERICS = 1
"""Version of everything that decides a number but is no setting; raised when results can move."""

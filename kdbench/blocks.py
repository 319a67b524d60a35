"""Deprecated name of ``kdbench.tensors``, kept for one release for methods outside kdbench."""

from kdbench.tensors import *  # noqa: F403

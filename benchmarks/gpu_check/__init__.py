"""A check of kdbench on a GPU: whether it is right there, how fast it is, and what limits it.

``python -m benchmarks.gpu_check --out DIR`` runs the sections of ``sections.py`` one after another
and writes a JSON line for every figure to ``DIR/check.jsonl`` at once, so that an interrupted check
keeps what it has measured. ``--device cpu --small`` runs the same code on a CPU with tiny networks.
"""

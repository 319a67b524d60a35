"""A typical research training loop, with which kdbench is compared.

Written from the papers in the simplest way: one run at a time, PIL images in a DataLoader, float32,
networks and losses in the default memory format, ``.item()`` every step. Not part of kdbench.
"""

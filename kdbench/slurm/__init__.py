"""Grids on a Slurm cluster, through submitit.

``runner`` submits and watches, ``element`` and ``node`` are what a job does, and what both agree
on lies in ``runs/.slurm/`` (``ledger``). Slurm is asked only for what ``runs/`` does not say
(``scheduler``, ``judge``).
"""

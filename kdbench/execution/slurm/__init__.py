"""Runs as jobs on a Slurm cluster."""

"""Grids of experiments, from a YAML file to its runs."""

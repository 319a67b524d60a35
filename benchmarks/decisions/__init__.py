"""Simulation of the rules that decide which method is better: docs/statistics.md."""

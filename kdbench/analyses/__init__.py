"""Analyses of trained runs: what the papers look at beside accuracy. One file each.

Each takes ``Subject``s and gives a ``Finding``: a table, a figure, and all their numbers.
"""

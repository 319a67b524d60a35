"""Figures that papers and repositories print, as CSV: data, not code."""

"""Figures, with the same bytes for the same records."""

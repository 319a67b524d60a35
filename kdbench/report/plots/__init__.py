"""Figures; the same records give the same bytes."""

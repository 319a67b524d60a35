"""The papers' analyses beyond accuracy, computed from trained runs."""

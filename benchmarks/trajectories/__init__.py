"""Whole trainings by the authors' own code and by kdbench, from the same weights and batches."""

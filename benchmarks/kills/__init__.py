"""Ends a training at every file operation of a run's end, and counts what is lost."""

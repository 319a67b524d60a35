"""Estimates of a run's operations, memory and hours before it starts."""

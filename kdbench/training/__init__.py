"""Train the runs of a cohort, each to a record or a checkpoint."""

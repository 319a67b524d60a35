"""Training of a cohort's runs, each to a record or a checkpoint."""

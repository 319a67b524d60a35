"""What the papers look at beside accuracy, from trained runs."""

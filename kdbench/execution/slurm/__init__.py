"""Training of a grid's runs as jobs on a Slurm cluster."""

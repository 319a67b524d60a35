"""Training of a grid's missing runs, by workers on this machine or by Slurm jobs."""

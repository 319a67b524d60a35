"""Who trains which run; workers on this machine, or jobs on Slurm."""

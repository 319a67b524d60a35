"""A grid of experiments, from its YAML file to the runs it asks for."""

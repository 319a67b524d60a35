"""Numbers to tables, plots, sentences and pages in results/."""

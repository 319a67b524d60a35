"""Tables, plots, sentences and pages in results/."""

"""Sentences, Markdown, LaTeX and the terminal."""

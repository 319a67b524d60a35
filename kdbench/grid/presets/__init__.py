"""Protocols that ship with kdbench, as YAML: data, not code."""

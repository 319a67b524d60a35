"""The files under ``runs/``: records, learning curves, heartbeats and leases."""

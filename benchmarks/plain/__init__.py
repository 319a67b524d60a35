"""What kdbench is measured against: training as the field's scripts usually do it.

Written here from the papers, in the plainest way: one run at a time, PIL images in a DataLoader,
float32, networks and losses in no special memory order, `.item()` every step. Not part of kdbench.
"""

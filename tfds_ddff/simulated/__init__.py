"""Frozen simulated stacks, see `simulated_dataset_builder.py`."""

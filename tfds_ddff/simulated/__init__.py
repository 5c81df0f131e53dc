"""Simulated stacks, frozen, see `simulated_dataset_builder.py`."""

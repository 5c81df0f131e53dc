"""NYU Depth v2, see `nyu_depth_dataset_builder.py`."""

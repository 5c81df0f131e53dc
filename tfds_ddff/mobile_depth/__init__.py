"""Mobile Depth, see `mobile_depth_dataset_builder.py`."""

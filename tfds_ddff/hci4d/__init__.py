"""HCI 4D Light Field, see `hci4d_dataset_builder.py`."""

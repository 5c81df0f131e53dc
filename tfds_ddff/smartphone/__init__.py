"""Smartphone: focal stacks of a phone camera with depth from multi-view stereo and its confidence."""

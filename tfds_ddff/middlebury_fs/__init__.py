"""Middlebury_FS: photographed scenes with synthetic focal stacks of 15 frames, disparity and an all-in-focus image."""

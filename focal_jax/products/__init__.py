"""What a person takes away from a prediction: all-in-focus image, depth PNG, point cloud, mesh, animation, report."""

"""FoD500: rendered focal stacks of five frames with depth, the data set of DefocusNet."""

"""FlyingThings3D_FS: rendered scenes with synthetic focal stacks of 15 frames, disparity and a sharp picture."""

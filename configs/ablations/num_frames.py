"""How many frames does a stack need?

  python -m focal_jax.sweeps --config=configs/ablations/num_frames.py --workdir=runs/num_frames
  python -m focal_jax.sweeps --config=configs/ablations/num_frames.py:smoke --seeds=1 --workdir=runs/num_frames_smoke

End to end; trained and validated with the same number of frames, over the same range of focus distances.
The variant `:small` trains only the depth network, on aligned stacks, from the weights of the model zoo.
"""

from ml_collections import ConfigDict

from focal_jax.recipes import ablations


def get_config(variant: str = '') -> ConfigDict:
  config = ablations.recipe(variant, 'configs/ablations/num_frames.py')
  if variant == 'small':
    ablations.from_trained(config, steps=150)
    config.networks = 'depth'
    config.simulator.sweep.aligned = 1.0
  return config


def sweep(add) -> None:
  for num_frames in (3, 5, 8, 10, 15):
    add({'simulator.num_frames': num_frames}, label=f'{num_frames} frames')

"""How should feature maps be downsampled: by strided convolution, by pooling, or by both in parallel?

  python -m focal_jax.sweeps --config=configs/ablations/downsampling.py --workdir=runs/downsampling
  python -m focal_jax.sweeps --config=configs/ablations/downsampling.py:smoke --seeds=1 --workdir=runs/downsampling_try

Trains only the depth network, on aligned stacks, so that alignment errors do not mask the effect.
"""

from ml_collections import ConfigDict

from focal_jax.recipes import ablations


def get_config(variant: str = '') -> ConfigDict:
  config = ablations.recipe(variant, 'configs/ablations/downsampling.py')
  config.networks = 'depth'
  config.simulator.sweep.aligned = 1.0
  return config


def sweep(add) -> None:
  add({'model.depth.downsampling': 'stride'}, label='stride only')
  add({'model.depth.downsampling': 'pooling'}, label='pooling only')
  add({'model.depth.downsampling': 'both'}, label='both')

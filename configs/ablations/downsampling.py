"""How should feature maps be made smaller: by strided convolution, by pooling, or by both side by side?

  python -m focal_jax.sweeps --config=configs/ablations/downsampling.py --workdir=runs/downsampling
  python -m focal_jax.sweeps --config=configs/ablations/downsampling.py:smoke --seeds=1 --workdir=runs/downsampling_try

The depth network alone, on stacks that are aligned, so that errors of the alignment do not cover what it does.
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

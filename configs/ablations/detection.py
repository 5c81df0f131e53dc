"""What do the two parts of sharp region detection contribute: its 2-D block, and its attention?

  python -m focal_jax.sweeps --config=configs/ablations/detection.py --workdir=runs/detection
  python -m focal_jax.sweeps --config=configs/ablations/detection.py:smoke --seeds=1 --workdir=runs/detection_smoke

Trains only the depth network, on aligned stacks, so that alignment errors do not mask the effect.
"""

from ml_collections import ConfigDict

from focal_jax.recipes import ablations


def get_config(variant: str = '') -> ConfigDict:
  config = ablations.recipe(variant, 'configs/ablations/detection.py')
  config.networks = 'depth'
  config.simulator.sweep.aligned = 1.0
  return config


def sweep(add) -> None:
  add({'model.depth.detection': 'attention'}, label='without 2-D block')
  add({'model.depth.detection': 'plane'}, label='without attention')
  add({'model.depth.detection': 'none'}, label='without both')
  add({'model.depth.detection': 'both'}, label='with both')

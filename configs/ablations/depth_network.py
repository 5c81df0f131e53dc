"""The published depth network, the same with focus measures as additional input, and the small one on focus measures.

  python -m focal_jax.sweeps --config=configs/ablations/depth_network.py --workdir=runs/depth_network
  python -m focal_jax.sweeps --config=configs/ablations/depth_network.py:smoke --seeds=1 --workdir=runs/depth_smoke

Trains only the depth network, on aligned stacks, with equal steps; a step of the small network takes a quarter of the
time on a CPU. `weights/LOG.md` has results for equal times.
"""

from ml_collections import ConfigDict

from focal_jax.recipes import ablations


def get_config(variant: str = '') -> ConfigDict:
  config = ablations.recipe(variant, 'configs/ablations/depth_network.py')
  config.networks = 'depth'
  config.simulator.sweep.aligned = 1.0
  return config


def sweep(add) -> None:
  add({'model.depth': {'name': 'won_jeon'}}, label='published')
  add({'model.depth': {'name': 'won_jeon', 'focus_measures': True}}, label='published, focus measures')
  add({'model.depth': {'name': 'curves'}}, label='curves')
  add({'model.depth': {'name': 'refined'}, 'loss.pyramid_weights': (0.1, 0.15, 0.25, 0.4, 1.0)}, label='refined')

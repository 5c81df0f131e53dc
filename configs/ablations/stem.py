"""Should the depth network's first layer look at every second pixel, as published, or at neighbours? And are blocks
that detect sharp regions still needed then?

  python -m focal_jax.sweeps --config=configs/ablations/stem.py --workdir=runs/stem
  python -m focal_jax.sweeps --config=configs/ablations/stem.py:smoke --seeds=1 --workdir=runs/stem_smoke

Trains only the depth network, on aligned stacks with faint blur, a pixel or two between the ends of the sweep, which
shows in the difference of neighbouring pixels.
"""

from ml_collections import ConfigDict

from focal_jax.recipes import ablations


def get_config(variant: str = '') -> ConfigDict:
  config = ablations.recipe(variant, 'configs/ablations/stem.py')
  config.networks = 'depth'
  config.simulator.sweep.update(aligned=1.0, blur_px=(0.5, 2.0))
  return config


def sweep(add) -> None:
  add({'model.depth.stem_dilation': 2}, label='every second pixel')
  add({'model.depth.focus_measures': True}, label='every second pixel, focus measures')
  add({'model.depth.stem_dilation': 1}, label='neighbours')
  add({'model.depth.stem_dilation': 1, 'model.depth.focus_measures': True}, label='neighbours, focus measures')

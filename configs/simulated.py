"""End to end on simulated stacks: no download, no data set.

  python -m focal_jax.main --config=configs/simulated.py --workdir=runs/simulated
  python -m focal_jax.main --config=configs/simulated.py:smoke --workdir=runs/smoke

With `--config.data.rgbd=nyu_depth` or `folder:DIR` half of the stacks are made from RGB-D photographs.
With `--config.data.textures=folder:DIR` half of the procedural surfaces carry photographs.

The full recipe is sized for one accelerator and has not been run to its end; `configs/shipped.py` is the recipe of the
shipped weights. `smoke` runs everything on two CPU cores in two to three minutes, most of it compilation.
"""

from ml_collections import ConfigDict

from focal_jax.recipes import default


def get_config(variant: str = '') -> ConfigDict:
  config = default.get_config()
  return default.with_variant(config, variant, 'configs/simulated.py')

"""DefocusNet on FoD500, the published recipe (Maximov, Galim and Leal-Taixe, CVPR 2020): aligned stacks of five frames.

  python -m tfds_ddff.build --dataset=fod500 --manual_dir=DOWNLOADS --data_dir=data
  python -m focal_jax.main --config=configs/baselines/defocusnet.py --workdir=runs/defocusnet
  python -m focal_jax.main --config=configs/baselines/defocusnet.py:smoke --workdir=runs/smoke

In metres. Differences: the published run starts from weights that were never released, and its loss covers all pixels,
with depth clipped at 3 m; here it covers those with depth up to 2 m, as the data set is read.

Not run to its end; needs an accelerator; time and results are not known. `smoke` takes a few steps on small crops.
"""

from ml_collections import ConfigDict

from focal_jax.config import network
from focal_jax.recipes import default, fod500


def get_config(variant: str = '') -> ConfigDict:
  config = fod500.get_config()
  config.model.depth = network('depth', 'defocusnet', unit='metres')
  config.model.align = network('align', 'none')
  config.data.augment = False
  config.steps = 200_100  # 2001 epochs of 400 stacks in batches of 4
  config.optimizer.b2 = 0.999
  # Of depth in units of 3 m.
  config.loss.update(unit='given', pyramid_weights=(1 / 9,), defocus_weight=1.0)
  return default.with_variant(config, variant, 'configs/baselines/defocusnet.py')

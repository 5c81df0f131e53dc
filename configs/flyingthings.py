"""FlyingThings3D_FS, the published recipe: aligned stacks of 15 frames, depth network only, crops of 256 px.

  python -m tfds_ddff.build --dataset=flyingthings_fs --manual_dir=DOWNLOADS --data_dir=data
  python -m tfds_ddff.build --dataset=middlebury_fs --manual_dir=DOWNLOADS --data_dir=data
  python -m focal_jax.main --config=configs/flyingthings.py --workdir=runs/flyingthings
  python -m focal_jax.main --config=configs/flyingthings.py:smoke --workdir=runs/smoke

Protocol: training and validation on FlyingThings3D, wherever disparity is known; test on Middlebury_FS, where disparity
is 10 .. 60 px.

Not run to its end; needs an accelerator; time and results are not known. `smoke` takes a few steps on small crops.
"""

from ml_collections import ConfigDict

from focal_jax.recipes import default


def get_config(variant: str = '') -> ConfigDict:
  config = default.get_config()
  config.networks = 'depth'
  config.data.update(source='flyingthings_fs', data_dir='data', crop_px=256)
  config.steps = 250_000  # 1000 epochs of 1000 stacks in batches of 4
  config.eval.update(dataset='middlebury_fs', split='test')
  return default.with_variant(config, variant, 'configs/flyingthings.py')

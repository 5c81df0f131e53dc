"""FoD500 (DefocusNet's fs_6), the published recipe: aligned stacks of five frames, depth network only, whole frames of
256 px.

  python -m tfds_ddff.build --dataset=fod500 --manual_dir=DOWNLOADS --data_dir=data
  python -m focal_jax.main --config=configs/fod500.py --workdir=runs/fod500
  python -m focal_jax.main --config=configs/fod500.py:smoke --workdir=runs/smoke

Protocol: training on the first 400 scenes where depth is at most 2 m; errors on the last 100 where it is 0.1 .. 1.5 m.
Validation uses the same scenes as the test, so best.npz is selected on them: report results of weights.npz, the last
step.

Not run to its end; needs an accelerator; time and results are not known. `smoke` takes a few steps on small crops.
"""

from ml_collections import ConfigDict

from focal_jax.recipes import default


def get_config(variant: str = '') -> ConfigDict:
  config = default.get_config()
  config.networks = 'depth'
  config.data.update(source='fod500', data_dir='data', crop_px=256, min_valid=0.0)  # a frame has only one such crop
  config.steps = 100_000  # 1000 epochs of 400 stacks in batches of 4
  config.validation_split = 'test'
  config.eval.update(dataset='fod500', split='test')
  return default.with_variant(config, variant, 'configs/fod500.py')

"""DDFF-12, the published recipe: aligned stacks, depth network only, crops of 224 px, focus and truth mapped to 0 ..
1.

  python -m tfds_ddff.build --dataset=ddff12 --manual_dir=DOWNLOADS --data_dir=data
  python -m focal_jax.main --config=configs/ddff12.py --workdir=runs/ddff12
  python -m focal_jax.main --config=configs/ddff12.py:smoke --workdir=runs/smoke

Protocol: training and validation on crops of the same six scenes; the benchmark is the split test, other scenes with
hidden depth. With `--config.data.source=ddff12/scene_disjoint`, and `eval.dataset` likewise, training and validation
use different rooms; 1000 epochs are then 100,000 steps.

Not run to its end; needs an accelerator; time and results are not known. `smoke` takes a few steps on small crops.
"""

from ml_collections import ConfigDict

from focal_jax.recipes import default


def get_config(variant: str = '') -> ConfigDict:
  config = default.get_config()
  config.networks = 'depth'
  config.data.update(source='ddff12', data_dir='data')
  config.steps = 1_317_250  # 1000 epochs of 5269 crops in batches of 4
  config.eval.update(dataset='ddff12', split='val')
  return default.with_variant(config, variant, 'configs/ddff12.py')

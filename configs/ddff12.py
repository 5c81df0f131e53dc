"""DDFF-12, the published recipe: aligned stacks, depth network alone, crops of 224 px, focus and truth mapped to 0 ..
1.

  python -m tfds_ddff.build --dataset=ddff12 --manual_dir=DOWNLOADS --data_dir=data
  python -m focal_jax.main --config=configs/ddff12.py --workdir=runs/ddff12

Not run to its end: the published 1000 epochs want accelerators. `smoke` takes a few steps on small crops.
"""

from ml_collections import ConfigDict

from configs import default


def get_config(variant: str = '') -> ConfigDict:
  config = default.get_config()
  config.data.source = 'ddff12'
  config.data.data_dir = 'data'
  config.networks = 'depth'
  config.steps = 1_317_000  # 1000 epochs of 5269 crops in batches of 4
  config.eval.update(dataset='ddff12', data_dir='data')
  if variant == 'smoke':
    config.data.crop_px = 32
    config.update(batch_size=2, steps=4, log_every=2, checkpoint_every=2, validation_every=4, validation_batches=1)
  elif variant:
    raise ValueError(f"unknown variant '{variant}' of configs/ddff12.py, expected 'smoke' or nothing")
  return config

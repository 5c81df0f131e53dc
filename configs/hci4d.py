"""HCI 4D Light Field, the published recipe: aligned stacks, depth network only, crops of 256 px.

  python -m tfds_ddff.build --dataset=hci4d --manual_dir=DOWNLOADS --data_dir=data
  python -m focal_jax.main --config=configs/hci4d.py --workdir=runs/hci4d
  python -m focal_jax.main --config=configs/hci4d.py:smoke --workdir=runs/smoke

Protocol: training on 20 scenes; MSE, RMS error and bumpiness on the other four (boxes, cotton, dino and sideboard)
where disparity is -2.5 .. 2.5 px. These four are the split val, so best.npz is selected on them: report results of
weights.npz, the last step.

Not run to its end; needs an accelerator; time and results are not known. `smoke` takes a few steps on small crops.
"""

from ml_collections import ConfigDict

from focal_jax.recipes import default


def get_config(variant: str = '') -> ConfigDict:
  config = default.get_config()
  config.networks = 'depth'
  config.data.update(source='hci4d', data_dir='data', crop_px=256)
  # 1000 epochs of 20 stacks in batches of 4, validated every 50 epochs on all scenes.
  config.update(steps=5000, validation_every=250, validation_stacks=4)
  config.eval.update(dataset='hci4d', split='val')
  return default.with_variant(config, variant, 'configs/hci4d.py')

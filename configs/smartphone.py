"""Smartphone ("Learning to Autofocus"), the published recipe: unaligned stacks of ten frames, end to end, crops of 224
px.

  python -m tfds_ddff.build --dataset=smartphone --manual_dir=DOWNLOADS --data_dir=data
  python -m focal_jax.main --config=configs/smartphone.py --workdir=runs/smartphone
  python -m focal_jax.main --config=configs/smartphone.py:smoke --workdir=runs/smoke

Protocol: training on 355 scenes, MAE and MSE on 47 others in the centre of 336 x 252 of the 504 x 378 px (height x
width); loss and errors are weighted by the confidence of the depth, which is the data set's `valid`. Crops of 256 px,
as published for all but DDFF-12, would be larger than that centre; 224 is the multiple of 32 px that fits. Crops come
from the whole frame. The true motion is unknown, so the alignment network learns only from the depth error;
`--config.init.alignment=FILE` starts from a network trained on true motion.

Validation uses the split test, so best.npz is selected on it: report results of weights.npz, the last step.

Not run to its end; needs an accelerator; time and results are not known. `smoke` takes a few steps on small crops.
"""

from ml_collections import ConfigDict

from focal_jax.recipes import default


def get_config(variant: str = '') -> ConfigDict:
  config = default.get_config()
  config.networks = 'both'
  # Stereo finds no depth on plain surfaces or nearer than 0.2 m, so few crops have depth everywhere.
  config.data.update(source='smartphone', data_dir='data', crop_px=224, min_valid=0.2)
  config.steps = 88_750  # 1000 epochs of 355 stacks in batches of 4
  config.validation_split = 'test'
  config.eval.update(dataset='smartphone', split='test', align='network')
  return default.with_variant(config, variant, 'configs/smartphone.py')

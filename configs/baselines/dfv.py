"""DFV (Yang, Huang and Zhou, CVPR 2022) on FoD500 and DDFF-12 together: stacks of five frames.

  python -m tfds_ddff.build --dataset=ddff12/scene_disjoint --manual_dir=DOWNLOADS --data_dir=data
  python -m tfds_ddff.build --dataset=fod500 --manual_dir=DOWNLOADS --data_dir=data
  python -m focal_jax.main --config=configs/baselines/dfv.py --workdir=runs/dfv
  python -m focal_jax.main --config=configs/baselines/dfv.py:volume --workdir=runs/fv
  python -m focal_jax.main --config=configs/baselines/dfv.py:smoke --workdir=runs/smoke

`volume` is the plain focus volume (FV), without differences of neighbouring frames. As published: smooth L1 of all four
depth maps over pixels within the focus range of the frames, Adam at 1e-4, gradients clipped to a norm of 0.5, batches
of 20, crops of 224 px, random sorted frames of DDFF-12. Differences: both data sets are in units of their own focus
range, whereas the published run multiplies FoD500's metres by 0.2 to resemble DDFF-12's disparities; the encoder starts
from random weights, not from ImageNet; the augmentation is this project's, with colours in addition to flips.

Not run to its end; needs an accelerator; time and results are not known. `smoke` takes a few steps on small crops.
"""

from ml_collections import ConfigDict

from focal_jax.config import network
from focal_jax.recipes import ddff12, default


def get_config(variant: str = '') -> ConfigDict:
  config = ddff12.get_config()
  config.model.padding = 'reflect'
  config.model.depth = network('depth', 'dfv', differential=variant != 'volume')
  config.model.align = network('align', 'none')
  config.data.update(source='0.5*ddff12/scene_disjoint + 0.5*fod500', num_frames=(5, 5))
  config.update(batch_size=20, steps=28_000)  # 700 epochs of 800 stacks
  config.optimizer.update(b2=0.999, clip_norm=0.5)
  # Huber's penalty at 1 is twice the smooth L1; the published weights are 1, 2, 4 and 8 fifteenths.
  weights = tuple(weight / 30 for weight in (1, 2, 4, 8))
  config.loss.update(penalty='huber', penalty_scale=1.0, pyramid_weights=weights, within_focus=True)
  config.eval.dataset = 'ddff12/scene_disjoint'
  return default.with_variant(config, '' if variant == 'volume' else variant, 'configs/baselines/dfv.py')

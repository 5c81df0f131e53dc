"""AiFDepthNet (Wang et al., ICCV 2021): on DDFF-12 from its depth, or from all-in-focus images alone.

  python -m tfds_ddff.build --dataset=ddff12 --manual_dir=DOWNLOADS --data_dir=data
  python -m focal_jax.main --config=configs/baselines/aifdepthnet.py --workdir=runs/aifdepthnet
  python -m focal_jax.main --config=configs/baselines/aifdepthnet.py:unsupervised --workdir=runs/aif_unsupervised
  python -m focal_jax.main --config=configs/baselines/aifdepthnet.py:unsupervised_hci4d --workdir=runs/aif_hci4d
  python -m focal_jax.main --config=configs/baselines/aifdepthnet.py:smoke --workdir=runs/smoke

The training code was never released. The losses are published: supervised, the absolute error of depth; unsupervised,
that of the all-in-focus image and the smoothness of depth where the image has no edges. Batch, crop, steps and the
weight of the smoothness are not published and chosen here; Adam at 1e-4 is common in the field. `unsupervised` learns
from simulated stacks, `unsupervised_hci4d` from HCI 4D Light Field with its central views, as in one of the authors'
tables; build it with `--dataset=hci4d`.

Not run to its end; needs an accelerator; time and results are not known. `smoke` takes a few steps on small crops.
"""

from ml_collections import ConfigDict

from focal_jax.config import network
from focal_jax.recipes import ddff12, default, hci4d, simulated


def learn_without_depth(config: ConfigDict) -> None:
  """Makes the loss that of the all-in-focus image and of the smoothness of depth."""
  config.loss.update(pyramid_weights=(0.0,), all_in_focus_weight=1.0, smoothness_weight=0.1)
  # Otherwise the last frame, to which the image belongs, is always nearest to it, whatever it shows sharply.
  config.simulator.sweep.update(aligned=1.0, exposure=(0.0, 0.0), white_balance=(0.0, 0.0))


def get_config(variant: str = '') -> ConfigDict:
  unsupervised = {'unsupervised': simulated, 'unsupervised_hci4d': hci4d}
  config = unsupervised.get(variant, ddff12).get_config()
  config.networks = 'depth'
  config.model.update(channels='RGB' if variant in unsupervised else 'BGR', padding='black')
  config.model.depth = network('depth', 'aifdepthnet')
  config.model.align = network('align', 'none')
  config.data.crop_px = 256
  config.optimizer.b2 = 0.999
  config.loss.update(unit='given', penalty='absolute', pyramid_weights=(1.0,))
  if variant in unsupervised:
    config.loss.unit = 'focus_range'
    learn_without_depth(config)
    return config
  return default.with_variant(config, variant, 'configs/baselines/aifdepthnet.py')

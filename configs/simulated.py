"""End to end on simulated stacks: no download, no data set.

  python -m focal_jax.main --config=configs/simulated.py --workdir=runs/simulated
  python -m focal_jax.main --config=configs/simulated.py:smoke --workdir=runs/smoke

With `--config.data.rgbd=nyu_depth` or `folder:DIR` half of the stacks are made of photographs with depth.

The full recipe is sized for one accelerator and has not been run to its end; `configs/shipped.py` is the recipe of the
weights that ship. `smoke` goes through all of it on two CPU cores in two to three minutes, most of them compilation.
"""

from ml_collections import ConfigDict

from configs import default


def get_config(variant: str = '') -> ConfigDict:
  config = default.get_config()
  if variant == 'smoke':
    config.simulator.update(num_frames=3, height_px=32, width_px=32, num_surfaces=4, margin_px=8)
    config.update(batch_size=2, steps=6, log_every=2, checkpoint_every=3, validation_every=6, validation_batches=1)
  elif variant:
    raise ValueError(f"unknown variant '{variant}' of configs/simulated.py, expected 'smoke' or nothing")
  return config

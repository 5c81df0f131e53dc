"""The weights in `weights/`: end to end on simulated stacks only, small crops, sized for two CPU cores.

  python -m focal_jax.main --config=configs/shipped.py --workdir=runs/shipped

See `weights/README.md` for the hardware, the time and the figures.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
  config = default.get_config()
  config.simulator.update(num_frames=8, size_px=64, num_surfaces=8, margin_px=16)
  config.optimizer.update(learning_rate=1e-3, warmup_steps=50, schedule='cosine')
  config.update(
    batch_size=3, steps=1800, checkpoint_every=200, validation_every=500, validation_batches=8, log_every=20
  )
  return config

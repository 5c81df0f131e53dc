r"""The weights in `weights/`: simulated stacks only, small crops, sized for two CPU cores, each network by itself.

  python -m focal_jax.main --config=configs/shipped.py:depth --workdir=runs/depth
  python -m focal_jax.main --config=configs/shipped.py:alignment --workdir=runs/alignment
  python -m focal_jax.main --config=configs/shipped.py --workdir=runs/shipped \
    --config.init.depth=runs/depth/weights.npz --config.init.alignment=runs/alignment/weights.npz

Each network alone learns faster than both together from nothing: a depth network that sees frames moved by an untrained
alignment network learns little. See `weights/README.md` for the hardware, the time and the figures.
"""

from ml_collections import ConfigDict

from configs import default


def get_config(stage: str = 'both') -> ConfigDict:
  config = default.get_config()
  config.networks = stage
  config.model.motion_side_px = 128  # crops of 64 px hold no large displacements; see benchmarks/alignment.py
  config.simulator.update(num_frames=8, height_px=64, width_px=64, num_surfaces=8, margin_px=16)
  config.optimizer.update(learning_rate=1e-3, warmup_steps=50, schedule='cosine')
  config.update(checkpoint_every=200, validation_every=250, validation_stacks=32, log_every=20)
  if stage == 'depth':
    config.simulator.sweep.aligned = 1.0
    config.update(batch_size=4, steps=1150)
  elif stage == 'alignment':
    config.simulator.sweep.aligned = 0.1
    config.optimizer.learning_rate = 2e-3
    config.best_metric = 'motion_px'
    config.update(batch_size=4, steps=1150)
  elif stage == 'both':
    config.steps = 0  # joins the two; more steps train them on together
  else:
    raise ValueError(f"unknown stage '{stage}' of configs/shipped.py, expected 'depth', 'alignment' or nothing")
  return config

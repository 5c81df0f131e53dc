r"""The weights in `weights/`: simulated stacks only, small crops, sized for two CPU cores, each network by itself.

  python -m focal_jax.main --config=configs/shipped.py:depth --workdir=runs/depth
  python -m focal_jax.main --config=configs/shipped.py:depth_wide --workdir=runs/depth_wide \
    --config.init.depth=runs/depth/weights.npz
  python -m focal_jax.main --config=configs/shipped.py:alignment --workdir=runs/alignment
  python -m focal_jax.main --config=configs/shipped.py --workdir=runs/shipped \
    --config.init.depth=runs/depth_wide/weights.npz --config.init.alignment=runs/alignment/weights.npz

Each network alone learns faster than both together from nothing: a depth network that sees frames moved by an untrained
alignment network learns little. Every camera of the simulator takes part, with a blur between that of a refocused light
field and of a fast lens, in stacks of 3 to 15 frames. See `weights/README.md` for the hardware, the time and the
figures, and `weights/LOG.md` for what else was tried.
"""

from ml_collections import ConfigDict

from configs import default
from focal_jax.simulate.cameras import CAMERAS

STAGES = ('depth', 'depth_wide', 'alignment', 'both')


def get_config(stage: str = 'both') -> ConfigDict:
  if stage not in STAGES:
    raise ValueError(f"unknown stage '{stage}' of configs/shipped.py, expected one of {', '.join(STAGES)}, or nothing")
  config = default.get_config()
  config.networks = 'depth' if stage == 'depth_wide' else stage
  config.model.focus_measures = True  # see configs/ablations/stem.py
  config.model.motion_side_px = 128  # crops hold no large displacements; see benchmarks/alignment.py
  config.simulator.update(num_frames=10, height_px=64, width_px=64, num_surfaces=8, margin_px=14, ends_valid=True)
  config.simulator.scene.beyond = 0.25  # a sweep rarely reaches the farthest thing in the picture
  # In metres the range of a sweep can be anything: nothing at infinity. Half a pixel is less than DDFF-12's blur.
  config.simulator.sweep.update(cameras=tuple(CAMERAS), far_dpt=(0.05, 2.0), blur_px=(0.5, 7.0))
  config.optimizer.update(learning_rate=1e-3, warmup_steps=50, schedule='cosine')
  config.update(batch_size=4, ema_decay=0.995, checkpoint_every=200, validation_every=500, log_every=20)
  config.validation_stacks = 64
  if config.networks == 'depth':
    config.data.simulated_frames = (3, 6, 10, 15)
    # As alignment leaves them: some exactly aligned, the others moved by fractions of a pixel.
    config.simulator.sweep.update(aligned=0.5, zoom=(0.997, 1.003), shake_px=(0.0, 0.4))
    config.steps = 2500
  if stage == 'depth_wide':
    config.simulator.update(height_px=128, width_px=128, num_surfaces=12)
    config.optimizer.learning_rate = 5e-4
    config.update(batch_size=2, steps=600)
  elif stage == 'alignment':
    # One number of frames: the network sees each frame beside the reference only.
    config.simulator.update(num_frames=6, height_px=96, width_px=96)
    config.simulator.sweep.aligned = 0.1
    config.best_metric = 'motion_px'
    config.steps = 1500
  elif stage == 'both':
    config.steps = 0  # joins the two; more steps train them on together
  return config

r"""The weights in `weights/`: simulated stacks only, each network trained separately; `depth_large` is for an
accelerator, the other stages are sized for two CPU cores.

  python -m tfds_ddff.textures --out=textures
  TEXTURES="--config.data.textures=folder:textures/train --config.validation_textures=folder:textures/val"
  python -m focal_jax.main --config=configs/shipped.py:depth_first --workdir=runs/depth_first $TEXTURES
  python -m focal_jax.main --config=configs/shipped.py:depth --workdir=runs/depth $TEXTURES \
    --config.init.depth=runs/depth_first/weights.npz
  python -m focal_jax.main --config=configs/shipped.py:depth_large --workdir=runs/depth_large $TEXTURES \
    --config.init.depth=runs/depth/weights.npz
  python -m focal_jax.main --config=configs/shipped.py:depth_mixed --workdir=runs/depth_mixed $TEXTURES \
    --config.init.depth=runs/depth_large/weights.npz
  python -m tfds_ddff.raytraced --out=raytraced --scenes=200 --textures=textures/train
  python -m focal_jax.main --config=configs/shipped.py:depth_raytraced --workdir=runs/depth_raytraced $TEXTURES \
    --config.data.raytraced=folder:raytraced --config.init.depth=runs/depth_mixed/weights.npz
  # then the same again from its weights, with --config.seed=4 --config.steps=3200 and new scenes (--first=40000), and
  # from those of step 1600, with --config.seed=5 --config.steps=2000 --config.optimizer.learning_rate=1.5e-4 and more
  python -m focal_jax.main --config=configs/shipped.py:alignment --workdir=runs/alignment $TEXTURES
  python -m focal_jax.main --config=configs/shipped.py --workdir=runs/shipped \
    --config.init.depth=runs/depth_raytraced/weights.npz --config.init.alignment=runs/alignment/best.npz

Trained separately, the networks learn faster than jointly from random weights: a depth network learns little from
frames moved by an untrained alignment network. Cameras, scenes and images vary as widely as possible, because a network
trained on a narrow simulator learns that simulator. `weights/README.md` has the hardware, time, results and deviations
from these commands, `weights/LOG.md` other experiments.
"""

from ml_collections import ConfigDict

from focal_jax.config import network
from focal_jax.recipes import default
from focal_jax.simulate.cameras import CAMERAS

MOVING = tuple(name for name, camera in CAMERAS.items() if not camera.aligned)  # cameras whose sweeps breathe or shake
STAGES = ('depth_first', 'depth', 'depth_large', 'depth_mixed', 'depth_raytraced', 'alignment', 'both')


def get_config(stage: str = 'both') -> ConfigDict:
  if stage not in STAGES:
    raise ValueError(f"unknown stage '{stage}' of configs/shipped.py, expected one of {', '.join(STAGES)}, or nothing")
  config = default.get_config()
  config.networks = 'depth' if stage.startswith('depth') else stage
  config.model.resampling = 'lanczos'
  config.model.depth = network('depth', 'refined', trusted_confidence=0.25)
  # Crops contain no large displacements; a second pass gained little, see weights/LOG.md.
  config.model.align = network('align', 'fitted', side_px=256)
  config.simulator.update(num_frames=10, height_px=64, width_px=64, num_surfaces=8, margin_px=16, ends_valid=True)
  config.simulator.update(lens_sigma_px=(0.2, 1.4), patterned=0.7)
  config.simulator.scene.update(beyond=0.1, thin=0.15, shape_px=(8.0, 200.0), contrast=(0.02, 1.0))
  # In metres the range of a sweep may be unbounded: no focus at infinity.
  config.simulator.sweep.update(cameras=tuple(CAMERAS), far_dpt=(0.05, 2.0))
  config.optimizer.update(learning_rate=1e-3, warmup_steps=50, schedule='cosine', clip_norm=1.0)
  config.update(batch_size=4, ema_decay=0.995, checkpoint_every=200, validation_every=250, log_every=25)
  config.validation_stacks = 64
  if config.networks == 'depth':
    # Half of them have ten frames, a third four, a sixth 24; each number is compiled separately.
    config.data.simulated_frames = (4, 4, 10, 10, 10, 24)
    # In DDFF-12's crops, four tenths of the pixels lie beyond the sweep, and blur over the sweep is only one pixel in
    # radius.
    config.simulator.truth_beyond = 0.36
    config.simulator.scene.anywhere = 0.4
    config.simulator.sweep.update(cameras=(*CAMERAS, 'ddff12', 'ddff12'), blur_px=(0.4, 16.0))
    # Like aligned stacks: some aligned exactly, others with residual motion of fractions of a pixel.
    config.simulator.sweep.update(aligned=0.5, zoom=(0.997, 1.003), shake_px=(0.0, 0.4))
    # The last of the network's depth maps is the result, the one before it the network's own estimate.
    config.loss.update(pyramid_weights=(0.1, 0.15, 0.25, 0.4, 1.0), balance=1e-3)
    config.steps = 1500
  if stage == 'depth':
    config.simulator.update(height_px=96, width_px=96)
    config.update(batch_size=3, steps=4000, validation_every=300, validation_stacks=48)
  elif stage == 'depth_large':
    # With 32 stacks per step real images improved too; with three only simulated ones did (weights/LOG.md).
    config.simulator.update(height_px=128, width_px=128)
    config.data.simulated_frames = (5, 10, 10, 18)
    config.optimizer.update(learning_rate=5e-4, warmup_steps=100)
    config.update(batch_size=32, steps=2850, ema_decay=0.998, validation_every=500, validation_stacks=48)
  elif stage in ('depth_mixed', 'depth_raytraced'):
    # Stacks of several lengths in one update. Results on real images improve for about a hundred updates and then get
    # worse (weights/LOG.md), so validation is frequent: compare the weights that it keeps on real stacks.
    config.simulator.update(height_px=128, width_px=128)
    config.data.simulated_frames = (5, 5, 10, 10, 10, 10, 10, 18)
    config.optimizer.update(learning_rate=3e-4, warmup_steps=160, steps_per_update=8)
    config.update(steps=2800, ema_decay=0.998, validation_every=400, validation_stacks=48)
    if stage == 'depth_raytraced':
      # The network's own estimate alone, which is what has to learn from these scenes.
      config.model.depth.trusted_confidence = 0.0
      config.data.raytraced_share = 0.4
      config.optimizer.learning_rate = 2e-4
  elif stage == 'alignment':
    # A single number of frames: the network compares each frame only with the next and the last.
    config.simulator.update(num_frames=6, height_px=96, width_px=96, margin_px=24, num_surfaces=6)
    # Much of an image has no texture, which must not count as static.
    config.simulator.scene.update(plain=0.45, shape_px=(8.0, 150.0))
    # Zooms in both directions, visible only in the images. In crops they displace less than in full images.
    config.simulator.sweep.update(cameras=MOVING, aligned=0.05, no_metadata=0.8, any_zoom=0.7)
    config.simulator.sweep.update(zoom=(0.88, 1.13), shake_px=(0.0, 4.0), blur_px=(0.7, 9.0))
    config.best_metric = 'motion_px'
    config.update(steps=1800, validation_every=200, validation_stacks=32)
  elif stage == 'both':
    config.steps = 0  # joins the two; more steps would train them jointly
  return config

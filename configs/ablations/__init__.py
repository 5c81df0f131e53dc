"""Sweeps for the paper's questions, on simulated stacks; see `focal_jax.sweeps.sweep`.

Each has a variant `:smoke` with a few steps on small stacks, which only tests that everything runs. Those that start
from `recipe` also have a variant `:small` for a CPU core, with few steps on stacks of strong blur and texture;
docs/ablations.md has its results.
"""

from ml_collections import ConfigDict

from focal_jax.recipes import default, simulated


def recipe(variant: str, path: str) -> ConfigDict:
  """configs/simulated.py, or one of its variants 'smoke' and 'small'; ValueError naming `path` for any other."""
  if variant not in ('', 'smoke', 'small'):
    raise ValueError(f"unknown variant '{variant}' of {path}, expected 'smoke', 'small' or nothing")
  config = with_variant(simulated.get_config(), '' if variant == 'small' else variant, path)
  if variant == 'small':
    config.simulator.update(num_frames=5, height_px=64, width_px=64, margin_px=16, lens_sigma_px=(0.15, 0.5))
    # On the full recipe's stacks, many of which show little blur or texture, the networks need thousands of stacks
    # before they predict more than a constant.
    config.simulator.sweep.blur_px = (3.0, 14.0)
    config.simulator.scene.update(contrast=(0.3, 1.0), plain=0.05)
    config.simulator.sensor.noiseless = 0.6
    config.optimizer.update(learning_rate=1e-3, warmup_steps=20, schedule='cosine', clip_norm=1.0)
    config.update(steps=300, ema_decay=0.98, log_every=50, checkpoint_every=150, validation_every=300)
    config.validation_stacks = 128
  return config


def with_variant(config: ConfigDict, variant: str, path: str) -> ConfigDict:
  """A recipe, or its smoke variant of four steps; ValueError naming `path` for any other variant."""
  config = default.with_variant(config, variant, path)
  if variant == 'smoke':
    config.update(steps=4, log_every=1, checkpoint_every=2, validation_every=4)
  return config


def from_trained(config: ConfigDict, steps: int) -> None:
  """Starts from the depth network of the model zoo: for the small variants of sweeps that do not change its layers."""
  config.init.depth = 'weights/won_jeon.npz'
  config.update(steps=steps, validation_every=steps)

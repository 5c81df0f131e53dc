"""The default settings, see `focal_jax.config` and docs/configuration.md.

Not meant for training as it is; the other recipes start from it.
"""

from ml_collections import ConfigDict

from focal_jax.config import to_config_dict


def get_config() -> ConfigDict:
  return to_config_dict()


def with_variant(config: ConfigDict, variant: str, file: str) -> ConfigDict:
  """The recipe in a file, or its variant 'smoke'; ValueError naming the file for any other variant."""
  if variant == 'smoke':
    smoke(config)
  elif variant:
    raise ValueError(f"unknown variant '{variant}' of {file}, expected 'smoke' or nothing")
  return config


def smoke(config: ConfigDict) -> ConfigDict:
  """Shrinks a recipe to seconds per step: a few steps on few small stacks that include everything a run does."""
  config.simulator.update(num_frames=3, height_px=32, width_px=32, num_surfaces=4, margin_px=8)
  config.data.update(crop_px=32, num_frames=(3, 3))
  config.update(batch_size=2, steps=6, log_every=2, checkpoint_every=3, validation_every=6, validation_stacks=2)
  return config

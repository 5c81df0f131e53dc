"""Sweeps for the paper's questions, on simulated stacks; see `focal_jax.sweeps.sweep`.

Each has a variant `:smoke` with a few steps on small stacks, which only tests that everything runs.
"""

from ml_collections import ConfigDict

from focal_jax.recipes import default, simulated


def recipe(variant: str, path: str) -> ConfigDict:
  """configs/simulated.py, or its smoke variant of four steps; ValueError naming `path` for any other variant."""
  return with_variant(simulated.get_config(), variant, path)


def with_variant(config: ConfigDict, variant: str, path: str) -> ConfigDict:
  """Same for another recipe."""
  config = default.with_variant(config, variant, path)
  if variant == 'smoke':
    config.update(steps=4, log_every=1, checkpoint_every=2, validation_every=4)
  return config

"""`python -m focal_jax.sweeps`: trains and compares the variants of a recipe, see `sweep`."""

from focal_jax.sweeps.sweep import run

if __name__ == '__main__':
  run()

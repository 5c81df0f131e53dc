"""`python -m focal_jax.sweeps`: the mode `sweep` of the command line, see `focal_jax.sweeps.sweep`."""

from focal_jax.main import run

if __name__ == '__main__':
  run('sweep', 'focal_jax.sweeps')

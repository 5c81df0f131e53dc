"""The recipes: `from focal_jax.recipes import default` works in a checkout and in an installed package alike.

A checkout has them in `configs/`, beside this package. A wheel has the files of `configs/` here, in place of this one,
so that it puts no package called `configs` into other people's environments.
"""

from pathlib import Path

__path__ = [str(Path(__file__).resolve().parents[2] / 'configs')]

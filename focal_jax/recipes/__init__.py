"""The recipes: `from focal_jax.recipes import default` works in a clone and in an installed package.

In a clone they are in `configs/`, beside this package. A wheel has the files of `configs/` here, instead of this file,
to avoid a top-level package called `configs`.
"""

from pathlib import Path

__path__ = [str(Path(__file__).resolve().parents[2] / 'configs')]

"""`focal-jax compare`: several weights and baselines on the same stacks, in one table and one picture."""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from focal_jax.errors import InputError
from focal_jax.evaluation.evaluator import evaluate_methods


def compare(config: ConfigDict, methods: list[str], out: Path, overwrite: bool = False) -> dict[str, Any]:
  """Evaluates methods like `focal_jax.evaluation.evaluator.evaluate`, and writes into `out`:

  summary.json and summary.md, with the differences of each method to the first, paired by stack, and their bootstrap
  intervals; comparison.png, a few stacks with RGB, truth, and depth and error of each method; per_image.csv,
  error_by_depth.png and sparsification.png.

  Args:
    config: as for `evaluate`.
    methods: names as for `evaluation.methods.open_methods`; the others are compared with the first.
    out: folder for the results.
    overwrite: replace existing results in `out`.

  Returns:
    The content of summary.json.

  Raises:
    InputError: as for `evaluate`; or fewer than two methods.
  """
  if len(methods) < 2:
    raise InputError(f'--methods has {len(methods)} method, expected at least two to compare: shipped,classical')
  return evaluate_methods(config, methods, out, overwrite, paired=True)

"""`focal-jax convert`: converts published weights (`.pth`) to a weights file of this project."""

import ast
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from focal_jax.api import PUBLISHED_SUFFIXES, load
from focal_jax.errors import InputError
from focal_jax.files.outputs import check_output, result_folder
from focal_jax.models.npz_file import save_weights

log = logging.getLogger(__name__)


def convert(weights: str, arguments: Sequence[str], out: Path, overwrite: bool = False) -> dict[str, Any]:
  """Writes `out`/weights.npz, which all modes accept.

  Args:
    weights: a published .pth file, as for `focal_jax.load`.
    arguments: fields of the model, 'NAME=VALUE' each, as for `focal_jax.load`: 'depth.differential=False'.
    out: folder for the result.
    overwrite: replace an existing result.

  Returns:
    The description in the weights file.

  Raises:
    InputError: the file is of no known network, or the model has no such argument.
  """
  check_output(out, overwrite)
  if Path(weights).suffix not in PUBLISHED_SUFFIXES:
    raise InputError(f'{weights}: is none of {", ".join(PUBLISHED_SUFFIXES)}, expected a published .pth to convert')
  model = load(weights, parse_arguments(arguments))
  with result_folder(out, overwrite) as staging:
    save_weights(staging / 'weights.npz', model.variables, model.description)
  log.info('wrote %s: %s', out / 'weights.npz', model.description)
  return model.description


def parse_arguments(texts: Sequence[str]) -> dict[str, Any]:
  """Parses 'NAME=VALUE' texts: {'differential': False, 'channels': 'BGR'} for ['differential=False', 'channels=BGR'].

  Raises:
    InputError: a text without '='.
  """
  found = {}
  for text in texts:
    name, equals, value = text.partition('=')
    if not equals:
      raise InputError(f"--arguments has '{text}', expected NAME=VALUE, as in differential=False")
    try:
      found[name.strip()] = ast.literal_eval(value.strip())
    except (SyntaxError, ValueError):
      found[name.strip()] = value.strip()  # a name: BGR
  return found

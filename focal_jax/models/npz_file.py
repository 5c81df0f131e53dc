"""This project's weights files: a flat .npz with one entry per tensor, named by its path, and a description of the
model.
"""

import json
from pathlib import Path
from typing import Any

import flax.traverse_util
import numpy as np

from focal_jax.errors import InputError, one_line
from focal_jax.files.outputs import PARTIAL

_DESCRIPTION = 'description'  # a JSON string: the model's name and fields


def save_weights(
  path: str | Path, variables: dict, description: dict[str, Any], kernel_dtype: Any = np.float32
) -> None:
  """Writes variables {'params', 'batch_stats'} and their description.

  Args:
    path: the .npz file to write.
    variables: tree of arrays.
    description: JSON-able, with the model's description under 'model'.
    kernel_dtype: float16 halves the file size; normalisation variables, which have any magnitude, stay float32.

  Raises:
    InputError: a value is not finite in the stored type; nothing is written.
  """
  arrays = {}
  for name, value in flax.traverse_util.flatten_dict(variables, sep='/').items():
    arrays[name] = np.asarray(value).astype(kernel_dtype if name.endswith('/kernel') else np.float32)
    if not np.isfinite(arrays[name]).all():
      raise InputError(f'{path}: {name} is not finite as {arrays[name].dtype}; nothing was written')
  path = Path(path)
  partial = path.with_name(path.name + PARTIAL)
  with partial.open('wb') as file:
    np.savez_compressed(file, **arrays, **{_DESCRIPTION: np.array(json.dumps(description))})
  partial.replace(path)


def load_weights(path: str | Path) -> tuple[dict, dict[str, Any]]:
  """Reads the variables, float32, and the description.

  Raises:
    InputError: the file is missing, damaged, or not written by this project.
  """
  try:
    # Opened here because NumPy does not close damaged files.
    with Path(path).open('rb') as stream, np.load(stream, allow_pickle=False) as file:
      arrays = {name: file[name] for name in file.files}
  except FileNotFoundError:
    raise InputError(f'{path}: no such weights file') from None
  except Exception as error:
    # A damaged file can break whatever reads it: besides what numpy and zipfile raise themselves, zlib.error,
    # struct.error, NotImplementedError (a compression method), RuntimeError (a password), MemoryError (a shape) ...
    raise InputError(f'{path}: not a readable .npz weights file ({one_line(error) or type(error).__name__})') from None
  if _DESCRIPTION not in arrays:
    raise InputError(f'{path}: no entry {_DESCRIPTION!r}; expected a weights file that focal_jax wrote')
  try:
    description = json.loads(str(arrays.pop(_DESCRIPTION)))
    flat = {name: value.astype(np.float32) for name, value in arrays.items()}
    variables = flax.traverse_util.unflatten_dict(flat, sep='/')
  except (ValueError, TypeError, RecursionError, AttributeError) as error:
    raise InputError(f'{path}: not a weights file that focal_jax wrote ({one_line(error)})') from None
  if not isinstance(description, dict):
    raise InputError(f'{path}: {_DESCRIPTION!r} is {description!r:.100}, expected a JSON object')
  return variables, description


def check_weights(path: str | Path, variables: dict, template: dict) -> None:
  """Raises InputError unless `variables` has exactly the tensors of `template`, with the same shapes."""
  found, wanted = (flax.traverse_util.flatten_dict(tree, sep='/') for tree in (variables, template))
  for name in wanted.keys() | found.keys():
    if name not in found:
      raise InputError(f'{path}: tensor {name} is missing')
    if name not in wanted:
      raise InputError(f'{path}: tensor {name} is none of this network')
    if found[name].shape != tuple(wanted[name].shape):
      raise InputError(f'{path}: tensor {name} has shape {found[name].shape}, expected {tuple(wanted[name].shape)}')

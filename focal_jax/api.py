"""The entry points for other programs: `focal_jax.load(...)` and `.predict(...)`. The command line uses them too."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from focal_jax.backend import use_compilation_cache
from focal_jax.errors import InputError
from focal_jax.models import published
from focal_jax.models.description import model_from_description, replace_fields
from focal_jax.models.end_to_end import variable_shapes
from focal_jax.models.npz_file import check_weights, load_weights
from focal_jax.models.registry import complete, make_model
from focal_jax.models.torch_file import read_state_dict
from focal_jax.prediction.classical_predictor import ClassicalPredictor
from focal_jax.prediction.network_predictor import NetworkPredictor

log = logging.getLogger(__name__)

Model, ClassicalModel = NetworkPredictor, ClassicalPredictor  # their older names

PUBLISHED_SUFFIXES = ('.pth', '.pt', '.tar')

SHIPPED = 'shipped'
_SHIPPED_FILE = 'simulated'  # the file that 'shipped' stands for
# In an installed package, and in a checkout.
_WEIGHTS_FOLDERS = (Path(__file__).parent / 'weights', Path(__file__).parents[1] / 'weights')


def shipped_weights() -> dict[str, Path]:
  """The shipped weights files by name; 'shipped' is the one for general use."""
  folder = next((folder for folder in _WEIGHTS_FOLDERS if folder.is_dir()), None)
  files = {path.stem: path for path in sorted(folder.glob('*.npz'))} if folder else {}
  return ({SHIPPED: files[_SHIPPED_FILE]} if _SHIPPED_FILE in files else {}) | files


def load(
  weights: str | Path | None = None, arguments: Mapping[str, Any] | None = None
) -> NetworkPredictor | ClassicalPredictor:
  """Loads a predictor. Its compiled programs are cached on disk (`use_compilation_cache`).

  Args:
    weights: one of

      * the name of shipped weights: 'shipped', the default (None), for general use; or for comparison 'won_jeon',
        'defocusnet', 'aifdepthnet', 'aifdepthnet_unsupervised', 'fv' or 'dfv';
      * a .npz written by this project;
      * a .pth (.pt, .tar) with published weights of Won and Jeon's network, DefocusNet, AiFDepthNet or DFV, read
        without PyTorch; channel order and padding are then as published;
      * 'classical' or 'classical:MEASURE' (`classical.MEASURES`) for depth from focus without a network.

      Names with a suffix are paths: 'classical.npz' is a weights file.
    arguments: only for a .pth: fields of the model that the file lacks, such as {'depth.differential': False} for DFV's
      plain focus volume, or that differ from the published ones, such as {'align.name': 'metadata'}; 'depth.' may be
      omitted (`models.description.replace_fields`).

  Raises:
    InputError: an unknown name or measure; or the file is missing, unreadable, or not weights of this network.
  """
  use_compilation_cache()
  name = SHIPPED if weights is None else str(weights)
  path = Path(name)
  if not path.suffix and name.partition(':')[0] == 'classical':
    return ClassicalPredictor(name)
  if name in (files := shipped_weights()):
    path = files[name]
  elif not path.suffix and path.name == name:
    raise InputError(
      f"weights are '{name}', expected one of {', '.join(files)}, classical, classical:MEASURE, or a path to a .npz or "
      '.pth'
    )
  if path.suffix in PUBLISHED_SUFFIXES:
    return _load_published(path, arguments or {})
  if arguments:
    raise InputError(f'{path}: arguments {dict(arguments)}, expected none: only a .pth takes them')
  if path.suffix != '.npz':
    raise InputError(f"{path}: weights of type '{path.suffix}', expected .npz or .pth")
  variables, description = load_weights(path)
  try:
    network = make_model(model_from_description(description))
  except InputError as error:
    raise InputError(f'{path}: {error}') from None
  if path not in files.values():  # those are checked by the tests; tracing the network takes a second or two
    check_weights(path, variables, variable_shapes(network))
  return NetworkPredictor(str(path), network, variables, description, [])


def _load_published(path: Path, arguments: Mapping[str, Any]) -> NetworkPredictor:
  tensors = read_state_dict(path)
  found = published.identify(path, tensors)
  model = complete(replace_fields(found.model, arguments))
  network = make_model(model)
  variables, unused = published.variables_from(path, tensors, found, variable_shapes(network))
  log.info('%s: published weights of %s; %d tensors in it are not used', path, found.name, len(unused))
  description = {'model': model, 'data': [published.DATA_OF_PUBLISHED]}
  return NetworkPredictor(str(path), network, variables, description, unused)

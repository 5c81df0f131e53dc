"""What other programs call: `focal_jax.load(...)` and `.predict(...)`. The command line takes the same path."""

import functools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from focal_jax.errors import InputError
from focal_jax.models import published
from focal_jax.models.end_to_end import variable_shapes
from focal_jax.models.npz_file import check_weights, load_weights
from focal_jax.models.registry import MODELS, make_model
from focal_jax.stack import FocalStack, Prediction, float_images

log = logging.getLogger(__name__)

Images = np.ndarray | jax.Array
Numbers = np.ndarray | jax.Array | Sequence[float | int]

# In a checkout, and in an installed package.
_SHIPPED = (
  Path(__file__).parents[1] / 'weights' / 'simulated.npz',
  Path(__file__).parent / 'weights' / 'simulated.npz',
)


class Model:
  """A network with its weights; see `load`.

  Attributes:
    name: the weights file.
    description: what the weights file says of itself; {} for a published file.
    unused: tensors of a published file that the network does not use.
  """

  def __init__(self, name: str, network: nn.Module, variables: dict, description: dict[str, Any], unused: list[str]):
    self.name, self.description, self.unused = name, description, unused
    self._variables = jax.device_put(variables)

    @functools.partial(jax.jit, static_argnames=('align',))
    def apply(variables, stack, align):
      return network.apply(variables, float_images(stack), align=align)

    self._apply = apply

  def predict(self, images: Images, focus: Numbers, fov: Numbers | None = None, align: bool = True) -> Prediction:
    """Depth of one focal stack.

    Args:
      images: [N, H, W, 3] RGB, uint8 or float 0 .. 1; N >= 2 frames, far to near, used in the order given; any H and W.
      focus: [N] focus coordinate of each frame, in any unit.
      fov: [N] relative field of view, 1 for the narrowest (`optics.relative_field_of_view`); None: all 1.
      align: False skips the alignment network and the field-of-view crop.

    Returns:
      numpy arrays: `depth` and `confidence` [H, W], `pyramid` four [H, W] (D1 .. D4), `weights` and `coverage` [N, H,
      W], `aligned` [N, H, W, 3] float 0 .. 1, `motion` [N, 3] (alpha, beta, gamma). Depth is in the unit of `focus`.

    Raises:
      InputError: an argument of another shape, type or range.

    A second call with the same shape does not compile again.
    """
    stack = _check(images, focus, fov)
    batch = jax.tree.map(lambda x: x[None], stack)
    prediction = jax.device_get(self._apply(self._variables, batch, align=bool(align)))
    return jax.tree.map(lambda x: x[0], prediction)


def load(weights: str | Path | None = None) -> Model:
  """A model ready to predict.

  Args:
    weights: None for the weights that ship with the project; a .npz that this project wrote; or a .pth (.pt, .tar) with
    the
      published network's weights, read without PyTorch, whose channel order and padding are then followed.

  Raises:
    InputError: the file is missing, unreadable, or not this network's.
  """
  if weights is None:
    weights = next((path for path in _SHIPPED if path.exists()), None)
    if weights is None:
      raise InputError(f'{_SHIPPED[0]}: the weights that ship with the project are missing; give a weights file')
  path = Path(weights)
  if path.suffix in ('.pth', '.pt', '.tar'):
    network = make_model('end_to_end', published.INPUT_CONVENTION)
    variables, unused = published.import_published(path, variable_shapes(network))
    log.info('%s: published weights; %d tensors in it are not used by the network', path, len(unused))
    return Model(str(path), network, variables, {}, unused)
  if path.suffix != '.npz':
    raise InputError(f"{path}: weights of type '{path.suffix}', expected .npz or .pth")
  variables, description = load_weights(path)
  if description.get('model') not in MODELS:
    raise InputError(f"{path}: weights of a model '{description.get('model')}', expected one of {', '.join(MODELS)}")
  try:
    network = make_model(description['model'], description['arguments'])
  except InputError as error:
    raise InputError(f'{path}: {error}') from None
  check_weights(path, variables, variable_shapes(network))
  return Model(str(path), network, variables, description, [])


def _check(images: Images, focus: Numbers, fov: Numbers | None) -> FocalStack:
  images = np.asarray(images)
  if images.ndim != 4 or images.shape[-1] != 3 or 0 in images.shape:
    raise InputError(f'images: shape {images.shape}, expected [N, H, W, 3]')
  frames = images.shape[0]
  if frames < 2:
    raise InputError(f'images: {frames} frame, expected at least 2')
  if images.dtype != np.uint8:
    if not np.issubdtype(images.dtype, np.floating):
      raise InputError(f'images: type {images.dtype}, expected uint8, or float 0 .. 1')
    # Written so that NaN fails too; the margin is for what rounding in a resize adds.
    if not (images.min() >= -1e-3 and images.max() <= 1 + 1e-3):
      raise InputError(f'images: float values from {images.min()} to {images.max()}, expected 0 .. 1')
    images = images.astype(np.float32)
  values = {
    'focus': np.asarray(focus, np.float32),
    'fov': np.asarray(np.ones(frames) if fov is None else fov, np.float32),
  }
  for name, value in values.items():
    if value.shape != (frames,):
      raise InputError(f'{name}: shape {value.shape}, expected ({frames},), one for each frame')
    if not np.isfinite(value).all():
      raise InputError(
        f'{name}: {value[~np.isfinite(value)][0]} at frame {np.argmin(np.isfinite(value))}, expected finite'
      )
  if (values['fov'] <= 0).any():
    raise InputError(f'fov: {values["fov"].min()} at frame {values["fov"].argmin()}, expected above 0')
  return FocalStack(images=images, **values)

"""What other programs call: `focal_jax.load(...)` and `.predict(...)`. The command line takes the same path."""

import functools
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Float32

from focal_jax.align.motion import checked_motion, reduced, scaled_motion
from focal_jax.backend import compiler_options
from focal_jax.errors import InputError
from focal_jax.models import published
from focal_jax.models.description import described_model, with_arguments
from focal_jax.models.end_to_end import padded_size, reduced_size, variable_shapes
from focal_jax.models.npz_file import check_weights, load_weights
from focal_jax.models.registry import complete, make_model
from focal_jax.models.torch_file import read_state_dict
from focal_jax.prediction.classical_predictor import ClassicalModel
from focal_jax.stack import FocalStack, Images, Numbers, Prediction, checked_stack, float_images

log = logging.getLogger(__name__)

PUBLISHED_SUFFIXES = ('.pth', '.pt', '.tar')

# In a checkout, and in an installed package.
_SHIPPED = (
  Path(__file__).parents[1] / 'weights' / 'simulated.npz',
  Path(__file__).parent / 'weights' / 'simulated.npz',
)


class Model:
  """A network with its weights; see `load`.

  Attributes:
    name: the weights file.
    network: without its weights.
    description: what the weights file says of itself; of a published file, the model and its arguments.
    unused: tensors of a published file that the network does not use.
  """

  def __init__(self, name: str, network: nn.Module, variables: dict, description: dict[str, Any], unused: list[str]):
    self.name, self.network, self.description, self.unused = name, network, description, unused
    self._variables = jax.device_put(variables)

    @functools.partial(jax.jit, static_argnames=('align',), compiler_options=compiler_options())
    def apply(variables, stack, size, align, motion=None):
      given = {} if motion is None else {'motion': motion}
      return network.apply(variables, float_images(stack), align=align, size=size, **given)

    @functools.partial(jax.jit, compiler_options=compiler_options())
    def estimate_motion(variables, stack, size):
      return network.apply(variables, float_images(stack), size=size, method='estimate_motion')

    self._apply, self._estimate_motion = apply, estimate_motion

  @property
  def variables(self) -> dict:
    """The weights: {'params', 'batch_stats'}, on the device."""
    return self._variables

  def predict(
    self,
    images: Images,
    focus: Numbers,
    fov: Numbers | None = None,
    align: bool = True,
    motion: np.ndarray | jax.Array | None = None,
  ) -> Prediction:
    """Depth of one focal stack.

    Args:
      images: [N, H, W, 3] RGB, uint8 or float 0 .. 1; N >= 2 frames, far to near, used in the order given; any H and W.
      focus: [N] focus coordinate of each frame, in any unit.
      fov: [N] relative field of view, 1 for the narrowest (`optics.relative_field_of_view`); None: all 1.
      align: False skips the alignment network and the field-of-view crop.
      motion: [N, 3] (alpha, beta, gamma), in px of these frames, to align by in place of what the network finds: an
        earlier `motion` or `estimate_motion`; zeros for the field-of-view crop alone.

    Returns:
      numpy arrays: `depth` and `confidence` [H, W], `pyramid` of [H, W], coarse to fine, `weights` and `coverage`
      [N, H, W], `aligned` [N, H, W, 3] float 0 .. 1, `motion` [N, 3] (alpha, beta, gamma). Depth is in the unit of
      `focus`; of the network that ships it may lie beyond the first and last focus by a part of their range.

    Raises:
      InputError: an argument of another shape, type or range.

    A second call does not compile again if frames are as many and their height and width, rounded up to multiples of
    32, the same.
    """
    stack = checked_stack(images, focus, fov)
    motion = checked_motion(motion, align, len(stack.images))
    height, width = stack.images.shape[1:3]
    batch, size = _padded(stack, padded_size(height, width))
    given = None if motion is None else motion[None]
    prediction = jax.device_get(self._apply(self._variables, batch, size, align=bool(align), motion=given))
    return jax.tree.map(lambda x: x[0], prediction).cropped(height, width)

  def estimate_motion(
    self, images: Images, focus: Numbers, fov: Numbers | None = None, max_side: int | None = None
  ) -> Float32[np.ndarray, 'N 3']:
    """Motion (alpha, beta, gamma) of every frame, without depth: `predict`'s, of frames of any size.

    Args:
      images: as for `predict`.
      focus: as for `predict`.
      fov: as for `predict`.
      max_side: longer side that frames are reduced to before, px; memory grows with it. None: as `predict` does it,
        which of published networks is not at all.

    Raises:
      InputError: an argument of another shape, type or range.
    """
    stack = checked_stack(images, focus, fov)
    size = stack.images.shape[1:3]
    array = padded_size(*size)
    sides = [side for side in (self.network.motion_side_px, max_side) if side]
    if sides:
      # In an array as large as `predict` has it: the network feels its borders.
      array = reduced_size(*array, min(sides))
      stack = stack.replace(images=reduced(stack.images, min(sides)))
    found = jax.device_get(self._estimate_motion(self._variables, *_padded(stack, array)))[0]
    return scaled_motion(found, stack.images.shape[1:3], size)


def _padded(stack: FocalStack, array: tuple[int, int]) -> tuple[FocalStack, tuple[np.int32, np.int32]]:
  """A batch of one stack, its frames at the top left of arrays of this height and width; and their own size."""
  size = stack.images.shape[1:3]
  widths = ((0, to - length) for to, length in zip(array, size, strict=True))
  padded = stack.replace(images=np.pad(stack.images, ((0, 0), *widths, (0, 0))))
  return jax.tree.map(lambda x: x[None], padded), tuple(map(np.int32, size))


def load(weights: str | Path | None = None, arguments: Mapping[str, Any] | None = None) -> Model | ClassicalModel:
  """A model ready to predict.

  Args:
    weights: None for the weights that ship with the project; a .npz that this project wrote; a .pth (.pt, .tar) with
      a published network's weights (Won and Jeon's, DefocusNet's, AiFDepthNet's or DFV's), read without PyTorch, whose
      channel order and padding are then followed; or 'classical' or 'classical:MEASURE' (`classical.MEASURES`) for
      depth from focus without a network. What has a suffix is a path: 'classical.npz' is a weights file.
    arguments: for a .pth: fields of the model that it does not tell, as {'depth.differential': False} for DFV's plain
      focus volume, or that are to be other than published, as {'align.name': 'metadata'}; 'depth.' may be left out
      (`models.description.with_arguments`).

  Raises:
    InputError: the file is missing, unreadable, or not this network's; or there is no such measure.
  """
  if weights is None:
    weights = next((path for path in _SHIPPED if path.exists()), None)
    if weights is None:
      raise InputError(
        f"{_SHIPPED[0]}: the weights that ship with the project are missing; give a weights file, or 'classical' "
        '(--method=classical) for depth without a network'
      )
  path = Path(weights)
  if not path.suffix and str(weights).partition(':')[0] == 'classical':
    return ClassicalModel(str(weights))
  if path.suffix in PUBLISHED_SUFFIXES:
    return _load_published(path, arguments or {})
  if arguments:
    raise InputError(f'{path}: arguments {dict(arguments)}, expected none: only a .pth does not say them itself')
  if path.suffix != '.npz':
    raise InputError(f"{path}: weights of type '{path.suffix}', expected .npz or .pth")
  variables, description = load_weights(path)
  try:
    network = make_model(described_model(description))
  except InputError as error:
    raise InputError(f'{path}: {error}') from None
  check_weights(path, variables, variable_shapes(network))
  return Model(str(path), network, variables, description, [])


def _load_published(path: Path, arguments: Mapping[str, Any]) -> Model:
  tensors = read_state_dict(path)
  found = published.identify(path, tensors)
  model = complete(with_arguments(found.model, arguments))
  network = make_model(model)
  variables, unused = published.variables_from(path, tensors, found, variable_shapes(network))
  log.info('%s: published weights of %s; %d tensors in it are not used', path, found.name, len(unused))
  description = {'model': model, 'data': [published.DATA_OF_PUBLISHED]}
  return Model(str(path), network, variables, description, unused)

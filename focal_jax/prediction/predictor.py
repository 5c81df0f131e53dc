"""The interface of networks, the classical method and the baselines of an evaluation."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Float32

from focal_jax.align.estimate import find_motion
from focal_jax.align.motion import mask_rotated_borders, without_rotation
from focal_jax.stack import FocalStack, Images, Numbers, Prediction, checked_stack


@runtime_checkable
class Predictor(Protocol):
  """Predicts a `Prediction` from a focal stack. The predictors of this project derive from it to share defaults.

  Attributes:
    name: its name in reports: the weights file, 'classical', 'constant'.
    description: what is needed to reproduce its results: the description in a weights file, the value of a constant.
    trained_on: data sets used to train its weights, as far as known; () for methods without weights.
    network: the network without its weights; None for methods without a network.
    has_alignment_network: whether `align` may be 'network'.
    reads_images: whether the result depends on the images; False for a constant.
    focus_offset: added to the given focus, in its unit.
  """

  name: str
  description: Mapping[str, Any] = {}
  trained_on: tuple[str, ...] = ()
  network: nn.Module | None = None
  has_alignment_network: bool = False
  reads_images: bool = True
  focus_offset: float = 0.0

  def predict(
    self,
    images: Images,
    focus: Numbers,
    fov: Numbers | None = None,
    align: str = 'measured',
    motion: np.ndarray | jax.Array | None = None,
    *,
    tile_px: int | None = None,
  ) -> Prediction:
    """Depth of one focal stack.

    Args:
      images: [N, H, W, 3] RGB, uint8 or float 0 .. 1; N >= 2 frames, far to near; the others are aligned to the last;
        any H and W.
      focus: [N] focus coordinate of each frame, in any unit.
      fov: [N] relative field of view, 1 for the narrowest (`optics.relative_field_of_view`); None: all 1.
      align: source of the frames' motion: 'measured' in the images, from the alignment 'network', from the 'metadata'
        (only the field of view), or 'off' for no alignment (`align.estimate`).
      motion: [N, 3] (alpha, beta, gamma), in px of these frames, instead of `align`: an earlier `Prediction.motion` or
        `estimate_motion`; zeros for only the field-of-view crop. [N, 4] with an earlier `Prediction.rotation`.
      tile_px: maximum height and width of the tiles in which a network predicts large frames; None: automatic.

    Returns:
      numpy arrays, depth in the unit of `focus`; see `Prediction`.

    Raises:
      InputError: an argument with a wrong shape, type or range, a motion with 'off', or 'network' without an alignment
        network.
    """
    ...

  def estimate_motion(
    self, images: Images, focus: Numbers, fov: Numbers | None = None, align: str = 'measured'
  ) -> Float32[np.ndarray, 'N K'] | None:
    """The motion that `predict` would undo; arguments and errors are the same. [N, 3], or [N, 4] with a rotation if
    frames are rotated; None with 'off'. This default is for predictors without an alignment network.
    """
    return find_motion(checked_stack(images, focus, fov), align, name=self.name)


def undo_rotation(
  predict: Callable[..., Prediction], stack: FocalStack, motion: Float32[np.ndarray, 'N K'] | None, *arguments: Any
) -> Prediction:
  """A prediction for frames that may be rotated, by a function for unrotated frames.

  Args:
    predict: takes a stack, a motion [N, 3] or None, and `arguments`.
    stack: the stack, on the host.
    motion: [N, 3], [N, 4] with a rotation, or None.
    arguments: passed on to `predict`.
  """
  if motion is None or motion.shape[1] == 3:
    return predict(stack, motion, *arguments)
  turned, rest = without_rotation(stack, motion)
  prediction = predict(turned, rest, *arguments)
  coverage = prediction.coverage
  if not coverage.flags.writeable:  # device arrays are read-only
    coverage = coverage.copy()
  mask_rotated_borders(coverage, motion, stack.fov)
  return prediction.replace(coverage=coverage, rotation=motion[:, 3])

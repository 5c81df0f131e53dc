"""What a network, the classical method and the baselines of an evaluation have in common."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Float32

from focal_jax.align.estimate import find_motion
from focal_jax.align.motion import cover_turned, upright
from focal_jax.stack import FocalStack, Images, Numbers, Prediction, checked_stack


@runtime_checkable
class Predictor(Protocol):
  """Makes a `Prediction` of a focal stack. Those of this project derive from it, for the values that most share.

  Attributes:
    name: what reports call it: its weights file, 'classical', 'constant'.
    description: what one must know to repeat its figures: what a weights file says of itself, the value of a constant.
    trained_on: data sets that its weights have seen, as far as that is known; () for methods without weights.
    network: what predicts, without its weights; None for methods that are no network.
    has_alignment_network: whether `align` may be 'network'.
    reads_images: whether what the pictures show makes a difference; not to a constant.
    focus_offset: what it adds to the focus that it is given, in its unit.
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
      images: [N, H, W, 3] RGB, uint8 or float 0 .. 1; N >= 2 frames, far to near, of which the last is what the others
        are aligned to; any H and W.
      focus: [N] focus coordinate of each frame, in any unit.
      fov: [N] relative field of view, 1 for the narrowest (`optics.relative_field_of_view`); None: all 1.
      align: where the motion of the frames comes from: 'measured' in the pictures, from the alignment 'network', from
        the 'metadata' that is the field of view alone, or 'off', which takes the frames as they are (`align.estimate`).
      motion: [N, 3] (alpha, beta, gamma), in px of these frames, in place of `align`: an earlier `Prediction.motion` or
        `estimate_motion`; zeros for the field-of-view crop alone. [N, 4] with an earlier `Prediction.rotation`.
      tile_px: largest height and width of the tiles in which a network predicts large frames; None: it decides.

    Returns:
      numpy arrays, depth in the unit of `focus`; see `Prediction`.

    Raises:
      InputError: an argument of another shape, type or range, a motion with 'off', or 'network' without an alignment
        network.
    """
    ...

  def estimate_motion(
    self, images: Images, focus: Numbers, fov: Numbers | None = None, align: str = 'measured'
  ) -> Float32[np.ndarray, 'N K'] | None:
    """The motion that `predict` would undo, without depth; arguments and errors are its own. [N, 3], or [N, 4] with a
    rotation if frames are turned; None with 'off'. As it stands here, of a predictor without an alignment network.
    """
    return find_motion(checked_stack(images, focus, fov), align, name=self.name)


def undo_rotation(
  predict: Callable[..., Prediction], stack: FocalStack, motion: Float32[np.ndarray, 'N K'] | None, *arguments: Any
) -> Prediction:
  """A prediction of frames that may be turned, by what predicts frames that are not.

  Args:
    predict: of a stack, a motion [N, 3] or None, and `arguments`.
    motion: [N, 3], [N, 4] with a rotation, or None.
  """
  if motion is None or motion.shape[1] == 3:
    return predict(stack, motion, *arguments)
  turned, rest = upright(stack, motion)
  prediction = predict(turned, rest, *arguments)
  coverage = prediction.coverage
  if not coverage.flags.writeable:  # as it comes from the device
    coverage = coverage.copy()
  cover_turned(coverage, motion, stack.fov)
  return prediction.replace(coverage=coverage, rotation=motion[:, 3])

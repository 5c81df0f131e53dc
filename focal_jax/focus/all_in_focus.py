"""The reference frame as it would be if all of it were sharp."""

import numpy as np
from jaxtyping import Float

from focal_jax.stack import Prediction

_COVERED = 0.99  # of a pixel, for what is made up beyond the border of a frame to have no part in it
_LEAST_WEIGHT = 1e-3  # that the frames which show a pixel must have of it


def all_in_focus(prediction: Prediction, focus: Float[np.ndarray, 'N']) -> Float[np.ndarray, 'H W 3']:
  """Mean of the aligned frames under the focus distribution, in the reference frame; RGB 0 .. 1, float32.

  A prediction without a distribution takes each pixel from the two frames around its depth, linear between them. Frames
  that do not show all of a pixel have no part in it; where that leaves none, the reference frame is shown. A network
  that predicts the image itself is believed where all frames show the pixel.

  Args:
    prediction: of one stack, on the host.
    focus: focus coordinate of each frame, in any order and spacing.
  """
  weights = prediction.weights
  if weights is None:
    order = np.argsort(focus, kind='stable')
    place = np.interp(prediction.depth, focus[order], np.arange(len(order)))
    weights = (np.maximum(1 - np.abs(place - rank), 0) for rank in np.argsort(order))
  total = np.zeros(prediction.depth.shape, np.float32)
  image = np.zeros((*total.shape, 3), np.float32)
  # Frame by frame, since a stack of photographs is large.
  for frame, coverage, weight in zip(prediction.aligned, prediction.coverage, weights, strict=True):
    weight = np.where(coverage > _COVERED, weight, 0).astype(np.float32)
    image += weight[..., None] * frame
    total += weight
  shown = (total > _LEAST_WEIGHT)[..., None]
  image /= np.where(shown, total[..., None], 1)
  image = np.where(shown, image, prediction.aligned[-1])
  if prediction.all_in_focus is not None:
    everywhere = np.min(prediction.coverage, axis=0) > _COVERED
    image = np.where(everywhere[..., None], prediction.all_in_focus, image)
  return np.clip(image, 0, 1)

"""The reference frame with everything in focus."""

import numpy as np
from jaxtyping import Float

from focal_jax.stack import Prediction

_COVERED = 0.99  # least coverage of a pixel: pixels beyond the border of a frame are made up and must not take part
_LEAST_WEIGHT = 1e-3  # least total weight of the frames that show a pixel; below, the reference frame is shown


def all_in_focus(prediction: Prediction, focus: Float[np.ndarray, 'N']) -> Float[np.ndarray, 'H W 3']:
  """Mean of the aligned frames under the focus distribution, in the reference frame; RGB 0 .. 1, float32.

  Without a focus distribution each pixel comes from the two frames around its depth, interpolated linearly. Frames that
  do not show all of a pixel are left out; where that leaves none, the reference frame is shown. If a network predicts
  the image itself, its image is used wherever all frames show the pixel.

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
  # Frame by frame, to limit memory: a stack of photographs is large.
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

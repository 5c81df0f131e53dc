"""Opaque static content: pixels that are equal in all frames, although the scene around them moves."""

from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from focal_jax.focus.fill import fill

EQUAL = 0.008  # maximum standard deviation of an opaque pixel over the frames, luminance 0 .. 1: noise and compression
AREA_PX = 2  # areas that erosion by this leaves something of have soft edges, such as from compression
GROWN_PX = 3  # dilation of such areas
RIM_PX = 6  # width of the rim of an opaque region, inside
STANDS = 0.25  # minimum share of a region's rim that differs from its surroundings; less is a scene without texture
_PRIOR = 1e-4  # of `fill`

Picture = Float[np.ndarray, 'h w']


def median_and_variation(layers: Float[np.ndarray, 'N h w']) -> tuple[Picture, Picture]:
  """The median over the layers, and a standard deviation from the median of the distances from it."""
  median = np.median(layers, 0)
  return median, 1.4826 * np.median(np.abs(layers - median), 0)


def find_opaque(layers: Float[np.ndarray, 'N h w'], stands: Bool[np.ndarray, 'h w']) -> Bool[np.ndarray, 'h w']:
  """Pixels that hide the scene, with the soft edges of areas.

  Args:
    layers: luminance 0 .. 1.
    stands: pixels with static content stronger than its variation.
  """
  equal = median_and_variation(layers)[1] < EQUAL
  areas = ndimage.binary_opening(equal, iterations=AREA_PX)
  hidden = equal | ndimage.binary_dilation(areas, iterations=GROWN_PX)
  # Of an evenly bright part of the scene, which is equal in all frames too, the edges move.
  labels, count = ndimage.label(hidden, np.ones((3, 3)))
  rim = hidden & ndimage.binary_dilation(~hidden, iterations=RIM_PX)
  total, found = (np.bincount(labels[where], minlength=count + 1) for where in (rim, rim & stands))
  keeps = found > STANDS * total
  keeps[0] = False
  return keeps[labels]


def fill_opaque(pictures: Sequence[Picture], hidden: Bool[np.ndarray, 'h w']) -> list[Picture]:
  """The pictures with hidden pixels filled in from their surroundings, so that they have no static edges."""
  weight = (~hidden).astype(np.float32)
  return [np.asarray(_filled(picture.astype(np.float32), weight)) for picture in pictures]


@jax.jit
def _filled(picture, weight):
  return fill(picture, weight, _PRIOR, smooth=True)

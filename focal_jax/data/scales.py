"""Finds frames of a stack whose values are on different scales, for example 12 bits in 16 among full 16-bit frames.

All frames of a sweep have one exposure, so their means are similar. Scales differ by two or more bits.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_OTHER_SCALE = 2.5  # minimum ratio of means between scales; exposures within a sweep differ by less
_AS_BRIGHT = 1.25  # maximum ratio of brightness to the other frames for which a scale is accepted


class Scale(NamedTuple):
  """Frames on one scale.

  Attributes:
    frames: their indices.
    white: their white level. None: the largest one found in these frames.
  """

  frames: list[int]
  white: float | None


def scales_of(
  means: Sequence[float], whites: Sequence[float], possible: Sequence[float], usual: float | None = None
) -> list[Scale]:
  """Assigns white levels with which all frames are about equally bright.

  Args:
    means: mean value of each frame.
    whites: white level of each frame, from that frame alone.
    possible: other possible white levels.
    usual: brightness, 0 .. 1, of other frames of the stack with a known white level. None: there are none.

  Returns:
    The scales; a single one if the frames do not differ, or if no white levels explain the difference.
  """
  order = sorted(range(len(means)), key=lambda n: means[n])
  groups = [order[:1]]
  for before, n in itertools.pairwise(order):
    if means[n] > _OTHER_SCALE * means[before]:
      groups.append([])
    groups[-1].append(n)
  greatest = [max(whites[n] for n in group) for group in groups]
  main, together = None, []
  if usual is None:
    main = max(range(len(groups)), key=lambda g: (len(groups[g]), greatest[g]))
    usual = float(np.median([means[n] for n in groups[main]])) / (greatest[main] or 1.0)
    together = groups[main]
  scales = []
  for g, (group, own) in enumerate(zip(groups, greatest, strict=True)):
    if g == main:
      continue
    mean = float(np.median([means[n] for n in group]))
    if min(mean, usual) > 0:
      best = min(
        (own, *(white for white in possible if white > own)), key=lambda white: abs(np.log(mean / white / usual))
      )
      if abs(np.log(mean / best / usual)) <= np.log(_AS_BRIGHT):
        scales.append(Scale(sorted(group), best))
        continue
    together = together + group
  return [*([Scale(sorted(together), None)] if together else []), *scales]

"""Frames of one stack whose values are on different scales, say 12 bits in 16 beside 16: by how bright they are.

The exposure of a sweep is one, so its frames have about the same mean. Scales differ by two bits and more.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_OTHER_SCALE = 2.5  # ratio of the means of frames that are not on one scale; exposures of one sweep differ by less
_AS_BRIGHT = 1.25  # ratio of brightness up to which a scale is believed


class Scale(NamedTuple):
  """Frames on one scale: their indices, and their white; None: it is what they reach."""

  frames: list[int]
  white: float | None


def scales_of(
  means: Sequence[float], whites: Sequence[float], possible: Sequence[float], usual: float | None = None
) -> list[Scale]:
  """The scales on which frames are about equally bright, where there are several; or else one for all.

  Args:
    means: of the values of each frame.
    whites: what each would have as its white if it were alone.
    possible: other values of white.
    usual: brightness, 0 .. 1, of other frames of the stack, whose white is known. None: there are none.
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

"""Notes for users, from the images of a stack: the order of its frames, and how far depth can be trusted."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Shaped

from focal_jax.align import static_pattern
from focal_jax.align.measured import ResidualMotion
from focal_jax.align.other_scene import find_changed_frames
from focal_jax.align.sharpness_order import order_by_sharpness
from focal_jax.data.folder import FolderStack
from focal_jax.data.metadata import FRAME_INDEX_UNIT
from focal_jax.data.names import format_list
from focal_jax.prediction.results import measured_residual

_MIXED_ZOOM = 0.004  # minimum `back_zoom` that confirms an order by sharpness
_EXPOSURE = 1.25  # minimum ratio of the brightness of frames to be noted; up to 1.04 in sweeps of one exposure
_MAX_LISTED = 24  # maximum number of frames whose likely order is listed


def in_order(stack: FolderStack, motion: ResidualMotion) -> tuple[FolderStack, ResidualMotion]:
  """Sorts a stack whose order is a guess by zoom and sharpness.

  Frames are sorted only if zoom and sharpness agree that they are out of order, and on the new order.

  Args:
    stack: without focus distances, or with positions whose direction is unknown.
    motion: measured motion of its frames.

  Returns:
    The stack, with a note if its frames are or were out of order, and its motion, measured again if they were sorted.
  """
  order = order_by_sharpness(stack.images) if stack.focus_unit == FRAME_INDEX_UNIT else None
  if order is not None and motion.zooms_both_ways(_MIXED_ZOOM):
    note = (
      'The zoom and sharpness of the frames show that they are out of order, or go back and forth: they were sorted '
      'accordingly. --far_to_near and --near_to_far keep the order of the files.'
    )
    in_order = stack.sorted(order, note)
    sorted_motion = measured_residual(in_order.images)
    if sorted_motion.near_end() == 'first':
      in_order = stack.sorted(order[::-1], note)
      sorted_motion = measured_residual(in_order.images)
    goes_one_way = not sorted_motion.zooms_both_ways() and sorted_motion.back_zoom < motion.back_zoom / 2
    if goes_one_way and sorted_motion.near_end() == 'last':
      stack, motion, order = in_order, sorted_motion, None
  if motion.zooms_both_ways() or order is not None:
    evidence = 'zoom goes in and out' if motion.zooms_both_ways() else 'frames come into focus more than once'
    note = (
      f'The {evidence}: the frames are out of order, or go back and forth, so depth is wrong. Give the frames of one '
      'direction, in their order, with --far_to_near or --near_to_far.'
    )
    if order is not None and len(order) <= _MAX_LISTED:
      note += f' The likely order by sharpness is {", ".join(stack.names[n] for n in order)}.'
    return dataclasses.replace(stack, notes=[*stack.notes, note]), motion
  end = motion.near_end()
  if end is None:
    return stack, motion
  nearest = np.flatnonzero(motion.measured)[0 if end == 'first' else -1]
  evidence = f'the content of {stack.names[nearest]} is larger, as at the near end of a breathing lens'
  if end == 'last':
    note = f'Taken as far to near: {evidence}. If this is wrong, use --near_to_far.'
    return dataclasses.replace(stack, notes=[*stack.notes, note]), motion
  stack = stack.reversed(
    f'The zoom indicates near to far, so the order was reversed: {evidence}. If this is wrong, use --far_to_near.'
  )
  return stack, measured_residual(stack.images)


def reliability_notes(stack: FolderStack, motion: ResidualMotion) -> list[str]:
  """Notes about the images that affect how far depth can be trusted."""
  notes = []
  if motion.static_pattern is not None:
    share = np.mean(static_pattern.shows(motion.static_pattern))
    notes.append(
      f'Static content in all frames while the scene moves, in {share:.0%} of the image, such as dust on the sensor, '
      'a scale bar or a black border. The motion was measured without it, but it is still in the frames: depth is '
      'wrong there, and confidence is 0. The all-in-focus image is from frames without it where possible.'
    )
  lost = [name for name, measured in zip(stack.names, motion.measured, strict=True) if not measured]
  if len(lost) == len(stack.names) - 1:
    notes.append('No frames could be compared: too little texture, or too much blur. Their motion is unknown.')
  elif lost:
    notes.append(
      f'{", ".join(lost)} could not be compared with the other frames: measuring aligns them only by the metadata, if '
      'at all. Remove files that do not belong to the series.'
    )
  return notes


def difference_notes(
  aligned: Shaped[np.ndarray, 'N H W 3'],
  coverage: Float[np.ndarray, 'N H W'],
  names: Sequence[str],
  measured: Bool[np.ndarray, 'N'],
) -> list[str]:
  """Notes about aligned frames that differ from the others by more than their focus. Frames whose motion could not be
  measured may just be very blurred.
  """
  changed, brightness = find_changed_frames(aligned, coverage)
  notes = []
  if changed := [n for n in changed if measured[n]]:
    differs = 'differs' if len(changed) == 1 else 'differ'
    notes.append(
      f'{format_list([names[n] for n in changed])} {differs} from the other frames in a part of the image: damaged, or '
      'something moved. Depth and the all-in-focus image may be wrong there.'
    )
  odd = [n for n, value in enumerate(brightness) if n not in changed and not 1 / _EXPOSURE < value < _EXPOSURE]
  if odd:
    least, greatest = (f'{limit(brightness[odd]):.2g}' for limit in (min, max))
    has, times = 'has' if len(odd) == 1 else 'have', least if least == greatest else f'{least} to {greatest}'
    notes.append(
      f'Exposure differs: {format_list([names[n] for n in odd])} {has} {times} times the usual brightness. The '
      'all-in-focus image may be patchy.'
    )
  return notes

"""Estimation of the frames' motion, by method.

| name | motion |
| --- | --- |
| measured | by phase correlation, including rotation (`measured`); needs no network |
| network | by the alignment network |
| metadata | only the field-of-view crop from the metadata |
| off | none, not even the crop |
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Float32

from focal_jax.align.measured import ResidualMotion, residual_motion
from focal_jax.align.motion import checked_motion, exceeds_min_rotation, reduced, scaled_motion
from focal_jax.errors import InputError
from focal_jax.stack import FocalStack

ALIGNMENTS = ('measured', 'network', 'metadata', 'off')
SURE_ROTATION = 4.0  # rotation is undone only if some frame's exceeds this many standard errors
MEASURED_SIDE_PX = 1280  # frames are reduced to this longer side; finer detail does not change the measured motion

# (alpha, beta, gamma) of each frame, see `warp`; for rotated frames also the rotation, see `motion.rotate_back`.
Motion = Float32[np.ndarray, 'N K']


def check_alignment(align: Any, field: str = 'align') -> None:
  """Raises InputError if `align` is none of ALIGNMENTS (0.1.0 took True and False).

  Args:
    align: the value to check.
    field: its name in the message.
  """
  if not (isinstance(align, str) and align in ALIGNMENTS):
    raise InputError(f'{field} is {align!r}, expected one of {", ".join(ALIGNMENTS)}')


def find_motion(
  stack: FocalStack,
  align: str,
  *,
  given: np.ndarray | jax.Array | None = None,
  network: Callable[[FocalStack], Motion] | None = None,
  name: str = 'align',
) -> Motion | None:
  """The motion (alpha, beta, gamma) of every frame that aligns a stack to its last frame.

  A fourth column holds the rotation if frames are rotated. Only 'measured' finds rotation; the networks' motion has
  none, as published.

  Args:
    stack: on the host, as returned by `checked_stack`.
    align: one of ALIGNMENTS.
    given: [N, 3] or [N, 4], a known motion in px of these frames, used instead of `align`.
    network: estimates the motion of a stack; None if there is no alignment network.
    name: name of the model, for messages.

  Returns:
    [N, 3] or [N, 4] in px of these frames; None if frames are to stay as they are, without the field-of-view crop.

  Raises:
    InputError: an unknown `align`, 'network' without an alignment network, a motion of the wrong shape, or a motion
      together with 'off'.
  """
  check_alignment(align)
  frames = len(stack.images)
  if given is not None:
    if align == 'off':
      raise InputError("motion is given and align is 'off', expected one of the two")
    return checked_motion(given, frames)
  if align == 'off':
    return None
  if align == 'metadata':
    return np.zeros((frames, 3), np.float32)
  if align == 'measured':
    return measured_motion(stack)
  if network is None:
    raise InputError(f"{name}: has no alignment network and align is 'network', expected measured, metadata or off")
  return network(stack)


def measured_motion(stack: FocalStack) -> Motion:
  """The motion measured by phase correlation, 0 where the measurement fails. Frames may come in any order of focus.

  If the last frame cannot be compared with the others (because it is black, for example), the frames are aligned to the
  last one that can.

  Args:
    stack: on the host.

  Returns:
    [N, 3], or [N, 4] with rotation, in px of these frames.
  """
  size = stack.images.shape[1:3]
  images = reduced(stack.images, MEASURED_SIDE_PX)
  # Neighbours in focus have similar blur, so they are compared.
  order = np.argsort(stack.focus, kind='stable')
  back = np.argsort(order)
  with np.errstate(divide='ignore', invalid='ignore'):  # frames of a few pixels, whose motion is NaN
    measured = residual_motion(images[order], int(back[-1]), elsewhere=True, find_static_pattern=True)
  motion = motion_from_measured(measured, stack.fov[order])[back]
  return scaled_motion(motion, images.shape[1:3], size)


def motion_from_measured(measured: ResidualMotion, fov: Float[np.ndarray, 'N']) -> Motion:
  """The motion (alpha, beta, gamma) that `warp` undoes, for frames with relative fields of view `fov`; float32. If
  frames are rotated, a fourth column holds the rotation, and the rest is the motion after undoing it.

  A point q px from the centre of the reference lies at zoom q + shift in the frame. The reference itself is warped by
  its field of view alone, so what is at q after the warp was at z q before, and lies in the frame at zoom z q + shift.
  `warp` samples the frame at q - s (fov + alpha - 1) q - (beta, gamma), where s = 2 (W // 2) / (W - 1) converts q in px
  to u times W // 2. This gives alpha and the shift. NaN motion becomes 0, which leaves the field-of-view crop.
  """
  # Between even and odd lengths s differs by less than 1 / length, the precision of a single zoom for both axes.
  stretch = np.mean([2 * (n // 2) / max(n - 1, 1) for n in measured.size])
  if stretch == 0:  # a single pixel
    return np.zeros((len(fov), 3), np.float32)
  fov = fov.astype(np.float64)
  rotation = np.nan_to_num(measured.rotation)
  # Rotation within its error is not worth resampling for. If any frame is rotated, all are corrected.
  is_turned = (
    exceeds_min_rotation(rotation, measured.size).any()
    and (np.abs(rotation) > SURE_ROTATION * measured.zoom_error).any()
  )
  measured = measured if is_turned else dataclasses.replace(measured, rotation=np.zeros_like(rotation))
  zoom = measured.zoom * (1 - stretch * (fov[measured.reference] - 1))
  motion = np.concatenate([((1 - zoom) / stretch - (fov - 1))[:, None], -measured.without_rotation().shift_px], axis=-1)
  if is_turned:
    motion = np.concatenate([motion, measured.rotation[:, None]], axis=-1)
  return np.where(np.isfinite(motion), motion, 0).astype(np.float32)

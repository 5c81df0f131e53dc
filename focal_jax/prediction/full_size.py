"""Full-size results from depth computed on reduced frames.

Depth need not be computed for every pixel of a photograph: `focal_jax.load(...).predict(...)` on reduced frames takes a
fraction of the time and memory. Full-size frames are read one at a time, only for results that show their detail: the
aligned frames and the all-in-focus image. That image guides the enlargement of depth and confidence.
"""

import concurrent.futures
import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from PIL import Image

from focal_jax.align.motion import align_sharp, exceeds_min_rotation, scaled_motion
from focal_jax.data.folder import FolderStack
from focal_jax.files.pictures import to_uint8
from focal_jax.focus.all_in_focus import Fusion, ranks_of, sharp_ranks
from focal_jax.focus.enlarge import enlarge
from focal_jax.stack import Prediction


@dataclasses.dataclass(frozen=True, eq=False)
class FullSize:
  """A prediction at the size of the frames.

  Attributes:
    depth: in the unit of the stack's focus.
    confidence: 0 .. 1.
    all_in_focus: RGB 0 .. 255. These three are None without a prediction.
    in_all: pixels covered by all aligned frames.
    motion: of the frames, in their px; None if they were not aligned.
  """

  depth: Float32[np.ndarray, 'H W'] | None
  confidence: Float32[np.ndarray, 'H W'] | None
  all_in_focus: UInt8[np.ndarray, 'H W 3'] | None
  in_all: Bool[np.ndarray, 'H W']
  motion: Float32[np.ndarray, 'N K'] | None


def full_size(
  stack: FolderStack,
  prediction: Prediction | None,
  motion: Float32[np.ndarray, 'N K'] | None,
  max_side: int | None = None,
  save: Callable[[int, UInt8[np.ndarray, 'H W 3']], None] | None = None,
  static: Sequence[Bool[np.ndarray, 'h w']] | None = None,
) -> FullSize:
  """Reads the frames of a stack again, one at a time, and aligns them with the Lanczos kernel.

  Args:
    stack: the stack that was predicted.
    prediction: for `stack.images`; None: only align the frames.
    motion: aligns `stack.images`, with a rotation if they are rotated; None: frames stay as they are.
    max_side: longer side of the result, px; None: as in the files. If this is the size of `stack.images`, depth and
      confidence are those of the prediction.
    save: called with index and pixels of each aligned frame (black outside), in another thread.
    static: where each aligned frame shows static content such as dust, at any size; the all-in-focus image is taken
      from frames without it, if there are any. None: nowhere.

  Raises:
    InputError: a file can no longer be read; also any error raised by `save`.
  """
  size = stack.size(max_side)
  if motion is not None and motion.shape[1] > 3:
    # A rotation too small to be undone in the measured frames could exceed the threshold in larger ones; it is only an
    # error.
    turned = exceeds_min_rotation(motion[:, 3], stack.images.shape[1:3])
    motion = np.concatenate([motion[:, :3], np.where(turned, motion[:, 3], 0)[:, None]], -1)
  motion = None if motion is None else scaled_motion(motion, stack.images.shape[1:3], size)
  fusions = []  # each for pixels that those before it lack
  if prediction is not None:
    ranks = sharp_ranks(prediction, stack.focus)
    fusions.append(Fusion(ranks, len(stack.names), size))
    if static is not None:  # blurred frames are better
      fusions.append(Fusion(ranks, len(stack.names), size, any_depth=True))
  in_all = np.ones(size, bool)
  # Compression takes as long as everything else, so it overlaps with reading the next frame, but not more.
  with concurrent.futures.ThreadPoolExecutor(1) as pool:
    saved = None
    for index, rank in enumerate(ranks_of(stack.focus)):
      frame, inside = stack.frame(index, max_side), np.ones(size, bool)
      if motion is not None:
        frame, inside = align_sharp(frame, motion[index], float(stack.fov[index]))
      in_all &= inside
      if saved is not None:
        saved.result()
      saved = save and pool.submit(save, index, frame)
      if static is not None:
        inside &= ~np.asarray(Image.fromarray(static[index]).resize(size[::-1], Image.Resampling.NEAREST))
      for fusion in fusions:
        fusion.add(frame, inside, rank)
    if saved is not None:
      saved.result()
  if prediction is None:
    return FullSize(None, None, None, in_all, motion)
  picture = frame
  for fusion in reversed(fusions):
    picture = fusion.picture(picture)
  picture = to_uint8(picture)
  if prediction.all_in_focus is not None and prediction.depth.shape == size:
    picture = np.where(in_all[..., None], to_uint8(prediction.all_in_focus), picture)
  height, width = prediction.depth.shape
  guide = np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0))
  depth, confidence = enlarge(np.stack([prediction.depth, prediction.confidence]), guide, picture)
  return FullSize(depth, confidence, picture, in_all, motion)

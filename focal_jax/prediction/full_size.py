"""From depth of reduced frames to what people look at, in full size.

Depth need not be computed in every pixel of a photograph: `focal_jax.load(...).predict(...)` of reduced frames takes a
fraction of the time and the memory, and the whole frames are read one at a time for what shows their detail, the
aligned frames and the all-in-focus image. That image guides depth and confidence up to its size.
"""

import concurrent.futures
import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from PIL import Image

from focal_jax.align.motion import align_sharp, are_turned, scaled_motion
from focal_jax.data.folder import FolderStack
from focal_jax.files.pictures import to_uint8
from focal_jax.focus.all_in_focus import Fusion, ranks_of, sharp_ranks
from focal_jax.focus.enlarge import enlarge
from focal_jax.stack import Prediction


@dataclasses.dataclass(frozen=True, eq=False)
class FullSize:
  """A prediction in the size of the frames.

  Attributes:
    depth: in the unit of the stack's focus.
    confidence: 0 .. 1.
    all_in_focus: RGB. These three are None without a prediction.
    in_all: pixels that all aligned frames show.
    motion: of the frames, in their px; None if they were left as they are.
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
) -> FullSize:
  """Reads the frames of a stack once more, one at a time, and aligns them by Lanczos's kernel.

  Args:
    stack: as it was predicted.
    prediction: of `stack.images`; None: frames are aligned and no more.
    motion: that aligns `stack.images`, with a rotation if they are turned; None: frames stay as they are.
    max_side: longer side of the result, px; None: as in the files. If that is the size of `stack.images`, depth and
      confidence are those of the prediction.
    save: is given the index of each aligned frame, and the frame, black outside; in a thread of its own.

  Raises:
    InputError: a file cannot be read any more; and whatever `save` raises.
  """
  size = stack.size(max_side)
  if motion is not None and motion.shape[1] > 3:
    # What is too little to be turned back in the frames that were measured would be, in larger ones, by an error.
    turned = are_turned(motion[:, 3], stack.images.shape[1:3])
    motion = np.concatenate([motion[:, :3], np.where(turned, motion[:, 3], 0)[:, None]], -1)
  motion = None if motion is None else scaled_motion(motion, stack.images.shape[1:3], size)
  fusion = None
  if prediction is not None:
    fusion = Fusion(sharp_ranks(prediction, stack.focus), len(stack.names), size)
  in_all = np.ones(size, bool)
  # Compressing takes as long as all the rest: it goes on while the next frame is read, but no farther ahead.
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
      if fusion is not None:
        fusion.add(frame, inside, rank)
    if saved is not None:
      saved.result()
  if fusion is None:
    return FullSize(None, None, None, in_all, motion)
  picture = to_uint8(fusion.picture(frame))
  if prediction.all_in_focus is not None and prediction.depth.shape == size:
    picture = np.where(in_all[..., None], to_uint8(prediction.all_in_focus), picture)
  height, width = prediction.depth.shape
  guide = np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0))
  depth, confidence = enlarge(np.stack([prediction.depth, prediction.confidence]), guide, picture)
  return FullSize(depth, confidence, picture, in_all, motion)

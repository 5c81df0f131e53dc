"""Finds an all-in-focus image among the frames by its pixels: it is sharp wherever any frame is."""

import numpy as np
from jaxtyping import Float64, UInt8

_BLOCK_PX = 32
_MIN_FRAMES = 5
_MIN_BLOCKS = 24
_TEXTURE = 3.0  # minimum ratio of a block's gradient energy between its sharpest and least sharp frame, to count
_AS_SHARP = 0.7  # minimum gradient energy relative to the sharpest other frame
_NEARLY_ALL = 0.95  # minimum share of blocks in which it is as sharp
_SHARE = 0.1  # minimum share of blocks in which another frame must be the sharpest to count


def find_fused_frame(images: UInt8[np.ndarray, 'N H W 3']) -> int | None:
  """Index of the one frame that is about as sharp as the sharpest other frame nearly everywhere, where at least three
  other frames are sharpest somewhere; None: there is none.

  In a flat scene a frame may also be the sharpest everywhere. Then its neighbours are sharper than the others, so there
  are no three frames that are each sharpest in a part of the image.
  """
  if len(images) < _MIN_FRAMES:
    return None
  energy = np.stack([_energy(image) for image in images])
  textured = energy.max(axis=0) > _TEXTURE * np.maximum(energy.min(axis=0), 0.5)
  if textured.sum() < _MIN_BLOCKS:
    return None
  energy = energy[:, textured]
  found = []
  for candidate in range(len(images)):
    others = np.delete(energy, candidate, axis=0)
    as_sharp = np.mean(energy[candidate] >= _AS_SHARP * others.max(axis=0))
    shares = np.bincount(others.argmax(axis=0), minlength=len(others)) / others.shape[1]
    if as_sharp >= _NEARLY_ALL and np.sum(shares >= _SHARE) >= 3:
      found.append(candidate)
  return found[0] if len(found) == 1 else None


def _energy(image: UInt8[np.ndarray, 'H W 3']) -> Float64[np.ndarray, 'K']:
  """Mean squared gradient of the green channel in each block."""
  rows, columns = (size // _BLOCK_PX * _BLOCK_PX for size in image.shape[:2])
  green = image[:rows, :columns, 1].astype(np.float32)
  square = np.zeros_like(green)
  square[:, 1:] += (green[:, 1:] - green[:, :-1]) ** 2
  square[1:] += (green[1:] - green[:-1]) ** 2
  blocks = square.reshape(rows // _BLOCK_PX, _BLOCK_PX, columns // _BLOCK_PX, _BLOCK_PX)
  return blocks.mean(axis=(1, 3), dtype=np.float64).ravel()

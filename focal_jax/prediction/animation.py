"""An animation of the sweep, unaligned and aligned."""

from pathlib import Path

import numpy as np
from jaxtyping import Shaped
from PIL import Image

from focal_jax.files import pictures

_MAX_FRAMES = 16  # longer stacks are subsampled evenly to this
_FRAME_MS = 200


def write_animation(
  path: Path,
  before: Shaped[np.ndarray, 'N H W 3'],
  after: Shaped[np.ndarray, 'N H W 3'],
  max_side: int = 320,
) -> None:
  """Writes an endless GIF of the sweep, back and forth, unaligned on the left and aligned on the right.

  Args:
    path: the GIF file.
    before, after: unaligned and aligned frames, uint8 or float 0 .. 1.
    max_side: maximum of the longer side of each half, px.
  """
  count = len(before)
  chosen = np.unique(np.linspace(0, count - 1, min(count, _MAX_FRAMES)).round().astype(int))
  films = []
  for index in chosen:
    pair = (('unaligned', before[index]), ('aligned', after[index]))
    panels = [pictures.Panel(title, reduced(image, max_side)) for title, image in pair]
    films.append(pictures.tile([panels], f'frame {index + 1} of {count}'))
  # One palette for the whole sweep; otherwise colours would flicker.
  palette = Image.fromarray(np.concatenate(films)).quantize(256)
  films = [Image.fromarray(film).quantize(palette=palette, dither=Image.Dither.NONE) for film in films]
  films += films[-2:0:-1]
  films[0].save(path, save_all=True, append_images=films[1:], duration=_FRAME_MS, loop=0)


def reduced(image: Shaped[np.ndarray, 'H W 3'], max_side: int) -> Shaped[np.ndarray, 'h w 3']:
  """uint8, reduced so that its longer side is at most `max_side` px."""
  picture = Image.fromarray(pictures.to_uint8(image))
  scale = max_side / max(picture.size)
  if scale < 1:
    size = [max(1, round(length * scale)) for length in picture.size]
    picture = picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
  return np.asarray(picture)

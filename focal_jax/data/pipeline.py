"""Training batches, prepared on the host in a reproducible order: crops of stacks from one or several sources, and
crops of RGB-D photographs and ray-traced scenes that the device turns into stacks.

The only module that uses grain. Pixels stay uint8; photometric augmentation runs on the device (`augment`).
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grain
import jax
import numpy as np
from PIL import Image

from focal_jax import backend, warp
from focal_jax.data.sources import Source
from focal_jax.errors import InputError
from focal_jax.stack import FocalStack

_TRIES = 20  # random crops to try; if none has enough valid pixels, the best is used
_MIN_KNOWN = 0.5  # minimum share of pixels with known depth in a crop of a photograph
_MIN_WITHIN = 0.5  # minimum share of pixels with depth within the sweep in a crop of a ray-traced scene


@dataclasses.dataclass(frozen=True)
class BatchSettings:
  """How batches of stacks are made.

  Attributes:
    batch_size: stacks per step, over all devices and hosts.
    crop_px: side length of the random square crops, a multiple of 32.
    min_valid: minimum share of pixels with a target in a crop.
    num_frames: minimum and maximum number of frames, drawn anew for each batch; None: all. The farthest and the nearest
      frame are always kept, so that the targets stay within the focus range and the reference for alignment is the
      same.
    all_in_focus: whether to include all-in-focus images, if all sources have them.
    seed: random seed for order, crops and frames.
    num_threads: number of threads that read and crop. It does not affect the batches.
  """

  batch_size: int
  crop_px: int
  min_valid: float
  num_frames: tuple[int, int] | None = None
  all_in_focus: bool = False
  seed: int = 0
  num_threads: int = 16


class Batches:
  """Endless batches, determined by the seed.

  The seed and the index of a batch determine its examples and how they are prepared. Restarts, threads, and the number
  of hosts and devices have no effect. An epoch of a source uses each example once.
  """

  def __init__(
    self,
    sources: Sequence[tuple[Source, float]],
    prepare: Callable[[Any, int], Any],
    *,
    batch_size: int,
    seed: int = 0,
    num_threads: int = 16,
    devices: int = 1,
    host: int = 0,
    hosts: int = 1,
  ):
    """Opens the pipeline; nothing is read yet.

    Args:
      sources: the sources and their weights; examples are drawn in proportion to these.
      prepare: converts an example and its index in the order to a tree of arrays, with the same shapes for a whole
        batch. Any random numbers must be derived from the index.
      batch_size: examples per step, over all devices and hosts.
      seed: random seed for the order.
      num_threads: number of threads that read and prepare. It does not affect the batches.
      devices: number of devices of this host.
      host: index of this host among `hosts`.
      hosts: number of hosts.

    Raises:
      InputError: `batch_size` is not a multiple of the number of devices.
    """
    if batch_size % (devices * hosts):
      raise InputError(f'batch_size is {batch_size}, expected a multiple of the number of devices, {devices * hosts}')
    self._devices, self._share = devices, batch_size // hosts
    parts = [
      grain.MapDataset.source(source).seed(seed + index).shuffle().repeat() for index, (source, _) in enumerate(sources)
    ]
    data = parts[0] if len(parts) == 1 else grain.MapDataset.mix(parts, [weight for _, weight in sources])
    data = data.map_with_index(lambda index, example: prepare(example, index))
    # Batches are assembled after the threads, so that each thread works on single examples without waiting for others.
    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=2 * num_threads)
    self._data = data[host::hosts].to_iter_dataset(options).batch(self._share)

  def iterate(self, first_step: int = 0) -> Iterator[Any]:
    """This host's share from batch `first_step` on; arrays are [devices, share, ...]."""
    backend.keep_freed_memory()
    iterator = iter(self._data)
    iterator.set_state({'next_index': first_step * self._share})
    for batch in iterator:
      yield jax.tree.map(lambda x: x.reshape(self._devices, -1, *x.shape[1:]), batch)


def stack_batches(sources: Sequence[tuple[Source, float]], settings: BatchSettings, **spread: int) -> Batches:
  """Batches of `FocalStack`: random crops, and random frames, of stacks from weighted sources.

  `motion` is None unless all sources know it. Reads the first example of each source.

  Args:
    sources: the sources and their weights.
    settings: how batches are made.
    spread: `devices`, `host` and `hosts`, as for `Batches`.

  Raises:
    InputError: the sources cannot provide batches with these settings.
  """
  _check_sources([source for source, _ in sources], settings)
  with_motion = motion_known([source for source, _ in sources])
  if settings.all_in_focus and not all_in_focus_known([source for source, _ in sources]):
    settings = dataclasses.replace(settings, all_in_focus=False)

  frames = None if settings.num_frames else len(sources[0][0][0]['focus'])

  def prepare(example, index):
    # Only the first examples were checked before; reading all of them would take as long as an epoch.
    _check_example(example, settings, frames, with_motion)
    stack = FocalStack(**prepare_stack(example, index, settings))
    return stack if with_motion else stack.replace(motion=None)

  order = {name: getattr(settings, name) for name in ('batch_size', 'seed', 'num_threads')}
  return Batches(sources, prepare, **order, **spread)


def rgbd_batches(source: Source, canvas: tuple[int, int], *, seed: int = 0, **order: int) -> Batches:
  """Batches of random crops of RGB-D photographs: dicts of `rgb` [..., H, W, 3] uint8 and `depth_m` [..., H, W].

  Args:
    source: photographs, as opened by `data.rgbd.open_rgbd`.
    canvas: height and width of the crops, px.
    seed: random seed for order and crops.
    order: the rest, as for `Batches`.
  """

  def prepare(example, index):
    return crop_photograph(example, canvas, np.random.default_rng((seed, 1, index)))

  return Batches([(source, 1.0)], prepare, seed=seed, **order)


def raytraced_batches(source: Source, side: int, *, seed: int = 0, **order: int) -> Batches:
  """Batches of random crops of ray-traced scenes: dicts of `light` [..., P, side, side, 3] float16, `focus` [..., P]
  and `inverse_depth` [..., side, side]. Reads the first scene.

  Args:
    source: `data.raytraced.RaytracedScenes`.
    side: side of the crops, px.
    seed: random seed for order, sweeps and crops.
    order: the rest, as for `Batches`.

  Raises:
    InputError: the scenes are smaller than the crops; for a later scene, from the iteration.
  """
  planes = len(crop_scene(source[0], side, np.random.default_rng(0))['focus'])

  def prepare(scene, index):
    crop = crop_scene(scene, side, np.random.default_rng((seed, 2, index)))
    if len(crop['focus']) != planes:
      raise InputError(f'scene {scene["name"]!r}: found {len(crop["focus"])} planes, expected {planes} as in the first')
    return crop

  return Batches([(source, 1.0)], prepare, seed=seed, **order)


def prepare_stack(example: dict[str, Any], index: int, settings: BatchSettings) -> dict[str, Any]:
  """Crop and frames of the example at `index` of the order; arrays are copies."""
  if settings.num_frames:
    # The same number for the whole batch, because its stacks must have equal length.
    batch_rng = np.random.default_rng((settings.seed, 0, index // settings.batch_size))
    count = int(batch_rng.integers(*settings.num_frames, endpoint=True))
  rng = np.random.default_rng((settings.seed, 1, index))
  example = random_crop(example, settings.crop_px, settings.min_valid, rng, settings.all_in_focus)
  return random_frames(example, count, rng) if settings.num_frames else example


def random_crop(
  example: dict[str, Any], side: int, min_valid: float, rng: np.random.Generator, all_in_focus: bool = False
) -> dict[str, Any]:
  """A random square crop with targets in a share of at least `min_valid`, or the best of 20 crops.

  The true motion is converted: a zoom about the frame's centre is a zoom about the crop's centre plus a shift. The
  all-in-focus image is cropped if requested.
  """
  height, width = example['target'].shape

  def draw():
    top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    return (top, left), np.mean(example['valid'][top : top + side, left : left + side] > 0)

  top, left = best = _first_good(draw, min_valid)
  window = np.s_[top : top + side, left : left + side]
  return {
    'images': np.ascontiguousarray(example['images'][:, *window]),
    'focus': example['focus'],
    'fov': example['fov'],
    'motion': warp.motion_of_crop(example['motion'], example['fov'], (height, width), best, side),
    'target': np.ascontiguousarray(example['target'][window]),
    'valid': np.ascontiguousarray(example['valid'][window]),
  } | ({'all_in_focus': np.ascontiguousarray(example['all_in_focus'][window])} if all_in_focus else {})


def _first_good(draw: Callable[[], tuple[Any, float]], least: float) -> Any:
  """The first of 20 random crops whose share of usable pixels is at least `least`, or the best of them.

  Args:
    draw: returns a crop and its share.
    least: 0 .. 1.
  """
  best, best_share = None, -1.0
  for _ in range(_TRIES):
    crop, share = draw()
    if share > best_share:
      best, best_share = crop, share
    if share >= least:
      break
  return best


def random_frames(example: dict[str, Any], count: int, rng: np.random.Generator) -> dict[str, Any]:
  """`count` frames in order: the first, the last, and random ones between them."""
  total = len(example['focus'])
  between = 1 + rng.choice(total - 2, count - 2, replace=False)
  chosen = np.sort(np.concatenate([[0], between, [total - 1]])).astype(int)
  return example | {name: example[name][chosen] for name in ('images', 'focus', 'fov', 'motion')}


def crop_photograph(
  example: dict[str, Any], canvas: tuple[int, int], rng: np.random.Generator
) -> dict[str, np.ndarray]:
  """A random part of an RGB-D photograph with the size of a canvas, mirrored with probability one half.

  The scale is between 1 and the scale at which the photograph just covers the canvas; smaller photographs are enlarged
  to cover it. Takes the first of 20 crops with known depth in half of the pixels, or the best.

  Raises:
    InputError: the depth is unknown everywhere.
  """
  depth = example['depth_m']
  if not np.any(depth > 0):
    raise InputError(f'photograph {example["name"]!r}: found no pixel with known depth, expected at least one')
  size, canvas = np.array(depth.shape), np.array(canvas)
  cover = np.max(canvas / size)

  def draw():
    scale = max(cover, rng.uniform(min(cover, 1.0), 1.0))
    window = np.minimum(canvas / scale, size)
    corner = rng.uniform(0, size - window)
    # Depth takes the nearest pixel: interpolating across edges would create false surfaces.
    rows, columns = (
      (start + (np.arange(n) + 0.5) * extent / n).astype(int)
      for start, n, extent in zip(corner, canvas, window, strict=True)
    )
    crop = depth[rows][:, columns]
    return (crop, corner, np.minimum(corner + window, size)), np.mean(crop > 0)

  depth, (top, left), (bottom, right) = _first_good(draw, _MIN_KNOWN)
  rgb = Image.fromarray(example['rgb']).resize(
    (canvas[1], canvas[0]), Image.Resampling.LANCZOS, box=(left, top, right, bottom)
  )
  step = -1 if rng.random() < 0.5 else 1
  return {'rgb': np.asarray(rgb)[:, ::step], 'depth_m': depth[:, ::step]}


def crop_scene(scene: dict[str, Any], side: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
  """A random square of one sweep of a ray-traced scene, mirrored and transposed at random.

  Takes the first of 20 squares with half of the pixels within the sweep, or the best.

  Raises:
    InputError: the scene is smaller.
  """
  height, width = scene['inverse_depth'].shape
  if side > min(height, width):
    raise InputError(f'scene {scene["name"]!r}: is {width} x {height} px, expected at least the frames, {side} px')

  def draw():
    sweep = rng.integers(len(scene['focus']))
    top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
    depth = scene['inverse_depth'][top : top + side, left : left + side]
    first, last = scene['focus'][sweep, [0, -1]]
    return (sweep, top, left, depth), np.mean((depth >= first) & (depth <= last))

  sweep, top, left, depth = _first_good(draw, _MIN_WITHIN)
  light = scene['light'][sweep, :, top : top + side, left : left + side]
  down, right, transposed = rng.choice([-1, 1]), rng.choice([-1, 1]), rng.random() < 0.5
  light, depth = light[:, ::down, ::right], depth[::down, ::right]
  if transposed:
    light, depth = light.swapaxes(1, 2), depth.T
  light, depth = np.ascontiguousarray(light), np.ascontiguousarray(depth)
  return {'light': light, 'focus': scene['focus'][sweep], 'inverse_depth': depth}


def motion_known(sources: Sequence[Source]) -> bool:
  """Whether all sources know the true motion, from their metadata or else from their first examples.

  Raises:
    InputError: only some stacks of a folder have it.
  """
  known = [getattr(source, 'motion_known', None) for source in sources]  # for all sources, so that each is checked
  return all(
    np.isfinite(source[0]['motion']).all() if one is None else one for source, one in zip(sources, known, strict=True)
  )


def all_in_focus_known(sources: Sequence[Source]) -> bool:
  """Whether all sources have all-in-focus images, by their first examples; data sets without store a single pixel."""
  firsts = [source[0] for source in sources]
  return all('all_in_focus' in one and one['all_in_focus'].shape[:2] == one['target'].shape for one in firsts)


def _check_sources(sources: Sequence[Source], settings: BatchSettings) -> None:
  """Raises InputError unless the sources can provide equal batches."""
  firsts = [source[0] for source in sources]
  side = min(min(example['images'].shape[1:3]) for example in firsts)
  if settings.crop_px > side or settings.crop_px % 32:
    raise InputError(f"data.crop_px is {settings.crop_px}, expected a multiple of 32, at most the frames' {side} px")
  counts = [len(example['focus']) for example in firsts]
  if min(counts) < 2:
    raise InputError('data.source has stacks of one frame, expected at least two; photographs are for data.rgbd')
  if settings.num_frames is None:
    if len(set(counts)) > 1:
      raise InputError(f'data.source has stacks of {counts} frames; expected data.num_frames to make them equal')
  else:
    low, high = settings.num_frames
    if not 2 <= low <= high <= min(counts):
      raise InputError(
        f"data.num_frames is {(low, high)}, expected 2 <= minimum <= maximum <= the sources' {min(counts)}"
      )


def _check_example(example: dict[str, Any], settings: BatchSettings, frames: int | None, with_motion: bool) -> None:
  """Raises InputError unless a batch can include the example; `frames` is the required number of frames, if any."""
  found, height, width = example['images'].shape[:3]
  if min(height, width) < settings.crop_px:
    raise InputError(
      f'stack {example["name"]!r}: frames are {width} x {height} px, expected at least data.crop_px, '
      f'{settings.crop_px}, on both sides'
    )
  least = settings.num_frames[1] if settings.num_frames else frames
  if found < least or (frames and found != frames):
    expected = f'{frames}, as the first stack; data.num_frames makes them equal' if frames else f'at least {least}'
    raise InputError(f'stack {example["name"]!r}: found {found} frames, expected {expected}')
  if with_motion and not np.isfinite(example['motion']).all():
    raise InputError(f'stack {example["name"]!r}: its motion is unknown, expected motion for all stacks or for none')

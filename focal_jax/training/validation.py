"""Validation during training: errors on a fixed set of stacks, and pictures of the first ones."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from focal_jax import losses
from focal_jax.data import pipeline, sources
from focal_jax.data.texture_tiles import open_textures
from focal_jax.errors import InputError
from focal_jax.files import pictures
from focal_jax.files.pictures import Panel
from focal_jax.simulate.stacks import settings_from_config, simulate_batch
from focal_jax.stack import FocalStack, float_images
from focal_jax.training.parallel import AXIS, Devices, local_shares
from focal_jax.training.step import TrainState, averaged_variables

_PICTURES = 4  # stacks that are drawn
_PICTURE_PX = 256  # maximum longer side of drawn images; larger frames are subsampled


class Validation:
  """Errors of depth, and of motion if it is known, on a fixed set of stacks.

  The set consists of the first stacks in a split of the first source that is not simulated; or of stacks simulated from
  keys that no training step uses, with the photographs of `validation_textures`, if given. Depth errors are in units of
  the sweep's focus range, motion errors in px. The stacks are distributed over all devices, one at a time on each.

  Attributes:
    metrics: names of the measured metrics.
  """

  def __init__(self, config: ConfigDict, model: nn.Module, devices: Devices, workdir: Path):
    """Opens the source.

    Raises:
      InputError: there is none, or `best_metric` is not measured.
    """
    self._config, self._devices, self._workdir = config, devices, workdir
    self._source = None
    measured = next((name for name, _ in sources.parse_sources(config.data.source) if name != 'simulated'), None)
    settings = settings_from_config(config.simulator)
    if measured:
      self._source = sources.open_source(measured, config.validation_split, config.data.data_dir, settings)
    if measured and config.validation_textures:
      raise InputError(
        f"validation_textures is '{config.validation_textures}', expected '' where stacks of {measured} are measured"
      )
    textures = open_textures('validation_textures', config.validation_textures, config.data.textures_share)
    self._textures = devices.replicate(textures) if textures else None
    motion_known = self._source is None or pipeline.motion_known([self._source])
    self.metrics = ('mae', 'mse') if config.networks != 'alignment' else ()
    if motion_known and config.networks != 'depth':
      self.metrics += ('motion_px', 'unmoved_px')
    if config.best_metric not in self.metrics:
      names = ', '.join(self.metrics) or 'none'
      raise InputError(f"best_metric is '{config.best_metric}', expected one of what this run measures: {names}")
    if config.validation_stacks < 1:
      raise InputError(f'validation_stacks is {config.validation_stacks}, expected at least 1')

    key = jax.random.fold_in(jax.random.key(config.validation_seed), 2**31 - 1)

    def measure(everywhere, share):
      variables, textures = everywhere
      index, weight, stack = share
      if self._source is None:
        stack = simulate_batch(jax.vmap(jax.random.fold_in, (None, 0))(key, index), settings, textures)
      given, stack = float_images(stack), losses.unit_focus(float_images(stack))
      seen = stack if config.loss.unit == 'focus_range' else given
      prediction = model.apply(variables, seen, align=config.networks != 'depth')
      if seen is given:
        prediction = prediction.replace(depth=losses.in_focus_range(prediction.depth, given))
      valid = stack.valid * weight[:, None, None]
      error = jnp.abs(prediction.depth - stack.target)
      sums = {'mae': ((error * valid).sum(), valid.sum()), 'mse': ((error**2 * valid).sum(), valid.sum())}
      if motion_known:
        for name, motion in (('motion_px', prediction.motion), ('unmoved_px', jnp.zeros_like(stack.motion))):
          px = losses.motion_error(motion, stack.motion, *stack.images.shape[2:4]) * weight[:, None]
          sums[name] = (px.sum(), weight.sum() * px.shape[1])
      ends, every = jnp.array([0, -1]), -(-max(stack.images.shape[2:4]) // _PICTURE_PX)
      # Focus may increase towards the far end (metres), and so does depth in the focus range; images show 0 there.
      grows_far = (stack.focus[:, 0] > stack.focus[:, -1])[:, None, None]
      depth, truth = (jnp.where(grows_far, 1 - x, x) for x in (prediction.depth, stack.target))
      shown = {
        'images': stack.images[:, ends, ::every, ::every],
        'aligned': prediction.aligned[:, ends, ::every, ::every],
        'depth': depth[:, ::every, ::every],
        'confidence': prediction.confidence[:, ::every, ::every],
        'truth': jnp.where(stack.valid > 0, truth, jnp.nan)[:, ::every, ::every],
      }
      return jax.lax.psum({name: sums[name] for name in self.metrics}, AXIS), shown

    self._measure = devices.run(measure, outputs=(False, True))

  def _shares(self) -> Iterator[Any]:
    """(index, weight, stack) for this process's devices, one stack each; the weight is 0 beyond the end of the set."""
    devices, total = self._devices, self._config.validation_stacks
    if self._source is not None:
      total = min(total, len(self._source))
    for first in range(0, total, devices.count):
      number = first + devices.first + np.arange(devices.local_count)
      weight = (number < total).astype(np.float32)
      index = number[:, None].astype(np.int32)
      if self._source is None:
        yield index, weight[:, None], ()
        continue
      examples = [self._source[int(one)] for one in np.minimum(number, total - 1)]
      for shape in _shapes_everywhere(examples):
        has_it = np.array([example['images'].shape == shape for example in examples])
        yield index, (weight * has_it)[:, None], _together(examples, shape)

  def __call__(
    self, state: TrainState, step: int, should_stop: Callable[[], bool] = lambda: False
  ) -> tuple[dict[str, float], np.ndarray] | None:
    """The metrics, named 'validation/...', and an image (uint8 [H, W, 3]); None if told to stop meanwhile.

    The first process also writes the image to the folder `pictures` of the run.
    """
    variables = averaged_variables(state)
    totals, rows = None, []
    for share in self._shares():
      sums, shown = self._measure((variables, self._textures), self._devices.share(share))
      sums = jax.device_get(sums)
      totals = sums if totals is None else jax.tree.map(np.add, totals, sums)
      if len(rows) < _PICTURES:
        shown = jax.tree.map(lambda x: x[:, 0], local_shares(shown))
        rows += [_panels(**{name: x[i] for name, x in shown.items()}) for i in np.flatnonzero(share[1])]
      if should_stop():
        return None
    scalars = {f'validation/{name}': float(total / max(count, 1e-9)) for name, (total, count) in totals.items()}
    picture = self._draw(rows[:_PICTURES], step) if jax.process_index() == 0 else np.zeros((1, 1, 3), np.uint8)
    return scalars, picture

  def _draw(self, rows: list[list[Panel]], step: int) -> np.ndarray:
    folder = self._workdir / 'pictures'
    folder.mkdir(exist_ok=True)
    picture = pictures.tile(rows, f'step {step}: depth 0 (farthest frame) to 1 (nearest), error 0 to 0.25')
    pictures.save_image(folder / f'validation_{step:07}.png', picture)
    return picture


def _shapes_everywhere(examples: list[dict[str, Any]]) -> list[tuple[int, ...]]:
  """The distinct image shapes among the examples of all processes, in the same order on each, because they compute
  together.
  """
  shapes = np.array([example['images'].shape for example in examples], np.int32)
  if jax.process_count() > 1:
    shapes = np.asarray(multihost_utils.process_allgather(shapes)).reshape(-1, shapes.shape[-1])
  return sorted({tuple(shape.tolist()) for shape in shapes})


def _together(examples: list[dict[str, Any]], shape: tuple[int, ...]) -> FocalStack:
  """The examples with images of this shape, and black stacks in place of the others, [devices, 1, ...].

  The devices run one program with arrays of one shape, and padding would change a network's output.
  """
  frames, height, width, _ = shape
  black = {
    'images': np.zeros(shape, np.uint8),
    'focus': np.linspace(0, 1, frames, dtype=np.float32),
    'fov': np.ones(frames, np.float32),
    'target': np.zeros((height, width), np.float32),
    'valid': np.zeros((height, width), np.float32),
    'motion': np.zeros((frames, 3), np.float32),
  }
  chosen = [example if example['images'].shape == shape else black for example in examples]
  return FocalStack(**{name: np.stack([one[name][None] for one in chosen]) for name in black})


def _panels(images, aligned, depth, confidence, truth) -> list[Panel]:
  """One stack: nearest frame, its difference to the farthest before and after alignment, and the maps."""
  return [
    Panel('nearest', images[1]),
    Panel('3 |far - near|', 3 * np.abs(images[0] - images[1])),
    Panel('aligned', 3 * np.abs(aligned[0] - aligned[1])),
    Panel('depth', depth, '', (0.0, 1.0)),
    Panel('truth', truth, '', (0.0, 1.0)),
    Panel('|error|', np.abs(depth - truth), '', (0.0, 0.25), 'magma'),
    Panel('confidence', confidence, '', (0.0, 1.0), pictures.CONFIDENCE_COLOURS),
  ]

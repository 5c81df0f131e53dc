"""Input of a training step: stacks read by the host or rendered by the device."""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, Shaped
from ml_collections import ConfigDict

from focal_jax.data import pipeline, sources
from focal_jax.data.augment import augment_batch
from focal_jax.data.raytraced import RaytracedScenes
from focal_jax.data.rgbd import open_rgbd
from focal_jax.data.texture_tiles import open_textures
from focal_jax.errors import InputError
from focal_jax.simulate.raytraced import record_planes
from focal_jax.simulate.stacks import (
  SimulatorSettings,
  map_stacks,
  settings_from_config,
  simulate,
  simulate_batch,
  simulate_rgbd,
)
from focal_jax.simulate.textures import Textures
from focal_jax.stack import FocalStack, float_images
from focal_jax.training.parallel import Devices


class TrainingData:
  """The input of the training step: what the host sends to each device in every step, and how the device makes stacks
  from it.

  Purely simulated stacks are rendered on the device from keys and, for stacks of photographs or ray-traced scenes, from
  these; photographs used as textures are transferred once for all steps. Everything else is read, cropped and mixed on
  the host (`data.pipeline`) and augmented on the device.

  Attributes:
    motion_known: whether the true motion of the stacks is known.
    all_in_focus_known: whether the stacks have all-in-focus images: simulated ones, and those of data sets that have
      them if the loss uses them.
  """

  def __init__(self, config: ConfigDict, devices: Devices):
    """Opens the sources.

    Raises:
      InputError: an invalid field of `config.data` or `config.simulator`, or missing data.
    """
    data = config.data
    self._config, self._devices = config, devices
    self._simulator = settings_from_config(config.simulator)
    self._frame_counts = _frame_counts(config)
    self._batches, self.motion_known, self.all_in_focus_known = None, True, True
    order = {
      'batch_size': config.batch_size,
      'seed': config.seed,
      'num_threads': data.num_threads,
    }
    spread = {'devices': devices.local_count, 'host': jax.process_index(), 'hosts': jax.process_count()}
    for field in ('rgbd_share', 'raytraced_share'):
      if not 0 <= data[field] <= 1:
        raise InputError(f'data.{field} is {data[field]}, expected a number from 0 to 1')
    for field in ('rgbd', 'raytraced', 'textures'):
      if data[field] and data.source != 'simulated':
        raise InputError(
          f"data.{field} is '{data[field]}' and data.source '{data.source}', expected data.source 'simulated'"
        )
    textures = open_textures('data.textures', data.textures, data.textures_share)
    if textures:  # a copy on each device, placed once for all steps
      copies = jax.tree.map(lambda x: np.broadcast_to(x, (devices.local_count, *x.shape)), textures)
      textures = devices.share(copies)
    self._textures = textures
    if data.rgbd or data.raytraced:
      self._batches = _MixtureBatches(config, self._simulator, **order, **spread)
      self.motion_known = self.all_in_focus_known = not data.raytraced
    elif data.source != 'simulated':
      names = sources.parse_sources(data.source)
      opened = [
        (sources.open_source(name, 'train', data.data_dir, self._simulator, config.seed), weight)
        for name, weight in names
      ]
      settings = pipeline.BatchSettings(
        crop_px=data.crop_px,
        min_valid=data.min_valid,
        num_frames=tuple(data.num_frames) or None,
        all_in_focus=max(config.loss.all_in_focus_weight, config.loss.smoothness_weight) > 0,
        **order,
      )
      self._batches = pipeline.stack_batches(opened, settings, **spread)
      opened = [source for source, _ in opened]
      self.motion_known = pipeline.motion_known(opened)
      self.all_in_focus_known = settings.all_in_focus and pipeline.all_in_focus_known(opened)

  def inputs(self, first_batch: int) -> Iterator[tuple[Any, Any]]:
    """(index, data) of every batch from `first_batch` on, on the devices: indices of the stacks in the batch, and the
    data read.
    """
    inputs = self._devices.ahead(zip(itertools.repeat(self._index()), self._data(first_batch)))
    return ((index, (data, self._textures)) for index, data in inputs) if self._textures else inputs

  def _index(self) -> Int[np.ndarray, 'devices share']:
    """Index of each stack in the batch: hosts alternate (`data.pipeline`)."""
    devices, host, hosts = self._devices, jax.process_index(), jax.process_count()
    share = self._config.batch_size // devices.count
    number = np.arange(devices.local_count * share, dtype=np.int32) * hosts + host
    return number.reshape(devices.local_count, share)

  def _data(self, first_batch: int) -> Iterator[Any]:
    read = itertools.repeat(()) if self._batches is None else self._batches.iterate(first_batch)
    return zip(read, self._slots(first_batch), strict=False) if self._frame_counts else read

  def _slots(self, first_batch: int) -> Iterator[Float[np.ndarray, 'devices N']]:
    """For each batch, an array with one element per frame of a stack: its length selects the compiled program."""
    for batch in itertools.count(first_batch):
      frames = np.random.default_rng([self._config.seed, batch]).choice(self._frame_counts)
      yield np.zeros((self._devices.local_count, frames), np.float32)

  def example(self) -> FocalStack:
    """A small batch of zeros with the fields of the stacks."""
    b, n, side = 1, 2, 32
    arrays = {'images': (b, n, side, side, 3), 'focus': (b, n), 'fov': (b, n), 'target': (b, side, side)}
    arrays |= {'valid': (b, side, side), 'motion': (b, n, 3)}
    if self.all_in_focus_known:
      arrays['all_in_focus'] = (b, side, side, 3)
    return FocalStack(**{name: jnp.zeros(shape) for name, shape in arrays.items()})

  def make_batch(self, keys: Key[Array, 'B'], inputs: Any) -> FocalStack:
    """A device's stacks, from one key per stack and their data."""
    settings, textures = self._simulator, None
    if self._textures:
      inputs, textures = inputs
    if self._frame_counts:
      inputs, slots = inputs
      settings = dataclasses.replace(settings, num_frames=len(slots))
    if self._batches is None:
      return simulate_batch(keys, settings, textures)
    if self._config.data.source == 'simulated':
      shares = {'rgbd': self._config.data.rgbd_share, 'raytraced': self._config.data.raytraced_share}
      return simulate_mixture(keys, inputs, shares, settings, textures)
    stack = float_images(inputs)
    return augment_batch(keys, stack) if self._config.data.augment else stack


def _frame_counts(config: ConfigDict) -> tuple[int, ...]:
  counts = tuple(config.data.simulated_frames)
  if counts and config.data.source != 'simulated':
    raise InputError(
      f"data.simulated_frames is {counts} and data.source '{config.data.source}', expected data.source 'simulated'"
    )
  if any(not isinstance(count, int) or count < 2 for count in counts):
    raise InputError(f'data.simulated_frames is {counts}, expected whole numbers of at least 2')
  return counts


class _MixtureBatches:
  """Photographs, ray-traced scenes or both for each batch: a dict with one dict of arrays for each of them."""

  def __init__(self, config: ConfigDict, simulator: SimulatorSettings, **order: int):
    data, self._parts = config.data, {}
    if data.rgbd:
      self._parts['rgbd'] = pipeline.rgbd_batches(open_rgbd(data.rgbd, data.data_dir), simulator.canvas, **order)
    if data.raytraced:
      if not data.raytraced.startswith('folder:'):
        raise InputError(f"data.raytraced is '{data.raytraced}', expected folder:DIR with ray-traced scenes")
      if simulator.height_px != simulator.width_px:
        raise InputError(
          f'simulator.height_px is {simulator.height_px} and simulator.width_px {simulator.width_px}, expected equal '
          'sides with data.raytraced'
        )
      scenes = RaytracedScenes(Path(data.raytraced.removeprefix('folder:')))
      self._parts['raytraced'] = pipeline.raytraced_batches(scenes, simulator.height_px, **order)

  def iterate(self, first_step: int = 0) -> Iterator[dict[str, Any]]:
    parts = zip(*(part.iterate(first_step) for part in self._parts.values()), strict=True)
    return (dict(zip(self._parts, batch, strict=True)) for batch in parts)


def simulate_mixture(
  keys: Key[Array, 'B'],
  inputs: dict[str, dict[str, Shaped[Array, 'B ...']]],
  shares: Mapping[str, float],
  settings: SimulatorSettings,
  textures: Textures | None = None,
) -> FocalStack:
  """Stacks of different origin: each made from its photograph or its ray-traced scene, each with its probability, or
  otherwise from a procedural scene.

  Procedural stacks are those of `simulate_batch`. With ray-traced scenes, no stack has its motion or an all-in-focus
  image, because stacks of a batch have the same fields.

  Args:
    keys: one per stack.
    inputs: `rgbd`, `raytraced` or both: as many photographs (`rgb`, `depth_m`) or scenes (`light`, `focus`,
      `inverse_depth`) as keys.
    shares: the probability of each: that of a photograph applies to stacks that do not show a scene.
    settings: the simulator's settings.
    textures: photographs as textures of procedural scenes.
  """

  unknown = {'motion': None, 'all_in_focus': None} if 'raytraced' in inputs else {}

  def procedural(key):
    return simulate(key, settings, textures).replace(**unknown)

  def from_photograph(key, rgb, depth_m):
    return simulate_rgbd(key, rgb.astype(jnp.float32) / 255, depth_m, settings).replace(**unknown)

  def one(both):
    key, inputs = both
    make = partial(procedural, key)
    makers = {'rgbd': from_photograph, 'raytraced': partial(record_planes, settings=settings)}
    for number, (origin, maker) in enumerate(makers.items(), 3):  # `simulate` splits the key into three
      if origin in inputs:
        chosen = jax.random.bernoulli(jax.random.fold_in(key, number), shares[origin])
        make = partial(jax.lax.cond, chosen, partial(maker, key, **inputs[origin]), make)
    return make()

  return map_stacks(one, (keys, inputs))

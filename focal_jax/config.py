"""All settings of a run: type, default and, in the comment next to or above it, the meaning of each.

Recipes start from `to_config_dict()`, change some fields and pass the ConfigDict to training and evaluation. The
sections `model`, `simulator` and `loss` are declared next to the code that uses them.

  python -m focal_jax.config docs/configuration.md

writes the reference of all fields, including those of each network.
"""

import collections.abc
import dataclasses
import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from ml_collections import ConfigDict

from focal_jax.errors import InputError
from focal_jax.losses import LossSettings
from focal_jax.models.registry import SECTIONS, ModelSettings, complete_network, networks, own_fields, settings_class
from focal_jax.simulate.stacks import SimulatorSettings


@dataclasses.dataclass(frozen=True)
class DataSettings:
  """Training data."""

  # simulated; a data set built by tfds_ddff.build; folder:DIR with one folder of images and target.npy per stack in
  # DIR/train and DIR/val; or a weighted mixture, such as '0.7*ddff12 + 0.3*simulated'.
  source: str = 'simulated'
  # RGB-D photographs that the training step turns into stacks, in addition to procedural scenes; only with
  # source='simulated'. nyu_depth, or folder:DIR in a layout of `focal_jax.data.rgbd`; empty: procedural scenes only.
  rgbd: str = ''
  rgbd_share: float = 0.5  # share of stacks made from RGB-D photographs, drawn at random
  # Ray-traced scenes that the training step turns into stacks, in addition to procedural scenes: folder:DIR, written by
  # `python -m tfds_ddff.raytraced`; only with source='simulated', for networks='depth'. Empty: none.
  raytraced: str = ''
  raytraced_share: float = 0.5  # share of stacks made from ray-traced scenes, drawn at random before data.rgbd_share
  # Photographs as textures of procedural surfaces: folder:DIR with pictures in it or its subfolders; only with
  # source='simulated'. `python -m tfds_ddff.textures` downloads free ones. Empty: procedural textures only.
  textures: str = ''
  textures_share: float = 0.5  # share of surfaces textured with part of a photograph, drawn at random
  # Numbers of frames of simulated stacks; each batch draws one, and repeated numbers are drawn more often. JAX compiles
  # the training step for each number. Only with source='simulated'; empty: simulator.num_frames.
  simulated_frames: tuple[int, ...] = ()
  data_dir: str = ''  # folder of the built data sets, for training, validation and evaluation
  num_threads: int = 16  # threads that read and crop; batches do not depend on it
  # Side of the random crop, a multiple of 32 px. This and the following fields have no effect with source='simulated'.
  crop_px: int = 224
  min_valid: float = 0.8  # minimum share of valid pixels in a crop, 0 .. 1
  num_frames: tuple[int, ...] = ()  # minimum and maximum number of frames per batch, drawn at random; empty: all
  augment: bool = True  # photometric and geometric augmentation as published


@dataclasses.dataclass(frozen=True)
class InitSettings:
  """Weights to start from."""

  depth: str = ''  # .npz weights file of this project for the depth network; empty: random initialisation
  alignment: str = ''  # .npz weights file of this project for the alignment network; empty: random initialisation


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
  """The Adam optimiser."""

  learning_rate: float = 1e-4  # peak learning rate; not published, a common value in the field
  b1: float = 0.9  # decay of the first moment, per update
  b2: float = 0.99  # decay of the second moment, per update
  # Number of steps whose gradients are averaged for one update of the weights: a larger batch in the memory of a small
  # one. Its stacks may have different numbers of frames (data.simulated_frames).
  steps_per_update: int = 1
  warmup_steps: int = 0  # steps of linear warm-up from 0
  schedule: Literal['constant', 'cosine'] = 'constant'  # learning rate after warm-up; cosine: to 0 at the last step
  clip_norm: float = 0.0  # gradients with a larger norm are scaled down to this norm; 0: no clipping


@dataclasses.dataclass(frozen=True)
class EvalSettings:
  """Data and methods of `focal-jax evaluate` and `focal-jax compare`; data sets are in data.data_dir."""

  # examples (included in the package), the name of a built data set, folder:DIR, simulated (by the section simulator),
  # or simulated/CAMERA with the camera's own sweep, such as simulated/pixel_6.
  dataset: str = 'examples'
  split: str = 'val'  # split of the data set
  # Alignment before prediction, as --align of predict. DDFF-12 is refocused from light fields and already aligned.
  align: Literal['measured', 'network', 'metadata', 'off'] = 'off'
  # Focus of data sets with known label errors (DDFF-12): as labelled, corrected, or each method with both.
  focus: Literal['both', 'labelled', 'corrected'] = 'both'
  num_stacks: int = 0  # number of stacks, from the start of the split; 0: all
  # Methods to compare with: constant (the mean target of the split train), classical, classical:laplacian and so on.
  baselines: tuple[str, ...] = ('constant', 'classical')
  pictures: int = 5  # number of stacks with the smallest, and with the largest, error to draw


@dataclasses.dataclass(frozen=True)
class Config:
  """A run. The defaults are the published recipe as far as it is known (Won and Jeon, ECCV 2022, section 4)."""

  seed: int = 0  # random seed of weights, data and augmentation
  model: ModelSettings = ModelSettings()  # networks and their input
  data: DataSettings = DataSettings()  # training data
  # Scenes, cameras and sensor of simulated stacks.
  simulator: SimulatorSettings = SimulatorSettings(height_px=224, width_px=224, margin_px=24)
  # Networks to train. both: end to end; depth: only depth, without alignment; alignment: only alignment, from known
  # motion.
  networks: Literal['both', 'depth', 'alignment'] = 'both'
  init: InitSettings = InitSettings()  # weights to start from
  batch_size: int = 4  # stacks per step on all devices together; a multiple of their number times accumulate
  # Number of sequential parts of a device's share of the batch, to save memory; slow on a CPU, where
  # optimizer.steps_per_update makes as large updates at full speed.
  accumulate: int = 1
  steps: int = 100_000  # total training steps
  parallel: Literal['pmap', 'shard_map'] = 'pmap'  # how the step is distributed over devices
  compute_dtype: Literal['float32', 'bfloat16'] = 'float32'  # type of activations; parameters are float32
  # Precision of float32 convolutions and matrix products in the networks. default: the device's default, bfloat16 on
  # TPUs and TF32 on recent GPUs; high: bfloat16 in three passes, or TF32; highest: float32. Warp, geometry and
  # statistics are always float32, and so is everything on CPUs.
  precision: Literal['default', 'high', 'highest'] = 'default'
  remat: bool = False  # recompute each block's activations in the backward pass: slower, less memory
  ema_decay: float = 0.0  # decay of a moving average of the weights, which is then validated and saved; 0: none
  optimizer: OptimizerSettings = OptimizerSettings()  # optimiser and learning rate
  loss: LossSettings = LossSettings()  # training loss
  max_skipped: int = 20  # the run stops after this many consecutive steps with a non-finite loss or gradient
  log_every: int = 50  # steps between lines of metrics, which are the means over these steps
  checkpoint_every: int = 500  # steps between checkpoints
  keep_checkpoints: int = 2  # number of checkpoints to keep, at least 2, so that one is left if one is damaged
  validation_every: int = 1000  # steps between validations
  validation_stacks: int = 32  # number of stacks to validate on
  validation_split: str = 'val'  # split of the data set to validate on
  validation_seed: int = 0  # seed of simulated validation stacks: runs with any seed validate on the same stacks
  validation_textures: str = ''  # as data.textures, for simulated validation stacks: photographs not used in training
  best_metric: str = 'mse'  # mse, mae or motion_px of the validation; best.npz has the weights with the lowest value
  eval: EvalSettings = EvalSettings()  # data and methods of focal-jax evaluate and compare


def to_config_dict(config: Config = Config()) -> ConfigDict:
  """The settings as a ConfigDict, for recipes to change and pass to training and evaluation."""
  return ConfigDict(dataclasses.asdict(config))


def network(section: Literal['depth', 'align'], name: str, **own: Any) -> ConfigDict:
  """A section `model.depth` or `model.align` with all fields of this network.

  Args:
    section: 'depth' or 'align'.
    name: name of the network.
    own: fields of the network that differ from their default.

  Raises:
    InputError: an unknown network or field, or a value that is not allowed.
  """
  return ConfigDict(complete_network(section, {'name': name, **own}))


def check_fields(config: ConfigDict) -> None:
  """Raises InputError for the first unknown field. Fields of networks are checked where a model is made."""

  def check(section: ConfigDict, kind: type, path: str) -> None:
    kinds = {field.name: field.type for field in dataclasses.fields(kind)}
    for name, value in section.items():
      if name not in kinds:
        where = f'{path[:-1]} has' if path else 'a config has'
        raise InputError(f'no field {path}{name}; {where} {", ".join(kinds)}')
      if dataclasses.is_dataclass(kinds[name]):
        check(value, kinds[name], f'{path}{name}.')

  check(config, Config, '')


def switch_networks(config: ConfigDict, overrides: Mapping[str, Any]) -> None:
  """Replaces the recipe's networks by those named on the command line, with their own fields.

  Args:
    config: the recipe, changed in place.
    overrides: dotted fields set on the command line; those of the new network are kept.

  Raises:
    InputError: an unknown network, or a field that the network lacks.
  """
  for section in SECTIONS:
    prefix = f'model.{section}.'
    if f'{prefix}name' in overrides:
      given = {field.removeprefix(prefix): value for field, value in overrides.items() if field.startswith(prefix)}
      config.model[section] = network(section, **given)
    elif f'model.{section}' in overrides:
      config.model[section] = ConfigDict(complete_network(section, config.model[section].to_dict()))


def meanings(kind: type) -> dict[str, str]:
  """The comment at the end of each field's line, or else the comment in the lines above it."""
  names, found, above = {field.name for field in dataclasses.fields(kind)}, {}, []
  for line in inspect.getsource(kind).splitlines():
    code, _, comment = line.partition('# ')
    field = re.match(r'  (\w+):', code)
    if field and field[1] in names and field[1] not in found:
      found[field[1]] = comment or ' '.join(above)
    above = [*above, comment] if not code.strip() and comment else []
  return found


_UNITS = {
  'px': 'px',
  'dpt': 'dioptres',
  'stops': 'stops',
  'every': 'steps',
  'steps': 'steps',
  'stacks': 'stacks',
  'frames': 'frames',
  'size': 'stacks',
  'threads': 'threads',
  'share': 'share, 0 .. 1',
}


def _row(field: dataclasses.Field, path: str, meaning: str, default: Any) -> str:
  unit = _UNITS.get(field.name.rpartition('_')[2], '')
  shown = f"{{'name': {default['name']!r}, ..}}" if isinstance(default, Mapping) else repr(default)
  return f'| `{path}{field.name}` | {_type_name(field.type)} | `{shown}` | {unit} | {meaning} |'


def _type_name(annotation: Any) -> str:
  origin, parts = get_origin(annotation), get_args(annotation)
  if origin is Literal:
    return ', '.join(f'`{part}`' for part in parts)
  if origin in (Union, UnionType):
    return ' or '.join(map(_type_name, parts))
  if origin is tuple:
    if parts[-1] is Ellipsis:
      return f'list of {_type_name(parts[0])}'
    return ', '.join(map(_type_name, parts))
  return 'section' if origin is collections.abc.Mapping else 'None' if annotation is type(None) else annotation.__name__


_HEADER = ['', '| field | type | default | unit | meaning |', '| --- | --- | --- | --- | --- |']


def _tables(kind: type, values: Any, path: str) -> Iterator[str]:
  """The table of a section's own fields, then those of its sections."""
  about, sections, rows = meanings(kind), [], []
  for field in dataclasses.fields(kind):
    value = getattr(values, field.name)
    if dataclasses.is_dataclass(value):
      sections.append((field, value))
    else:
      rows.append(_row(field, path, about[field.name], value))
  text, _, _ = inspect.cleandoc(kind.__doc__).partition('\n\nRaises:')
  yield from ('', f'## `config.{path[:-1]}`' if path else '## `config`', '', text)
  yield from (*_HEADER, *rows)
  for field, value in sections:
    yield from _tables(type(value), value, f'{path}{field.name}.')
    if isinstance(value, ModelSettings):
      yield from _network_tables()


def _network_tables() -> Iterator[str]:
  for section in SECTIONS:
    for name in networks(section):
      kind, own = settings_class(section, name), own_fields(section, name)
      yield from ('', f"### `config.model.{section}.name = '{name}'`", '')
      if not own:
        yield 'No fields of its own.'
        continue
      about = meanings(kind)
      yield from _HEADER[1:]
      yield from (_row(field, f'model.{section}.', about[field.name], field.default) for field in own.values())


_INTRODUCTION = """# Settings

Generated by `make reference` from the dataclasses and their comments (`focal_jax/config.py`).

A recipe in `configs/` starts from `focal_jax.config.to_config_dict()` and changes some fields. Every field can be set
on the command line, as in `--config.batch_size=8 --config.optimizer.learning_rate=3e-4`.

The fields of `model.depth` and `model.align` depend on their `name`; a field of another network is an error.

* In a recipe, `config.model.depth = network('depth', 'dfv', level=2)` (`focal_jax.config.network`) has all fields of
  that network. In `config.model.depth = {'name': 'dfv', 'level': 2}` omitted fields have their defaults.
* On the command line, `--config.model.depth.name=curves` selects that network with its defaults, regardless of the
  recipe. `--config.model.depth="{'name': 'dfv', 'level': 2}"` also sets fields that the recipe's network lacks.
"""


def reference() -> str:
  """The text of docs/configuration.md."""
  return _INTRODUCTION + '\n'.join(_tables(Config, Config(), '')) + '\n'


if __name__ == '__main__':
  if len(sys.argv) != 2:
    sys.exit('expected the file to write, as in: python -m focal_jax.config docs/configuration.md')
  Path(sys.argv[1]).write_text(reference())

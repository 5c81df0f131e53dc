"""Every setting of a run, once: type, default and, in the comment beside it or above it, its meaning.

Recipes start from `to_config_dict()`, change what they need and hand the ConfigDict to training and evaluation. The
sections `model`, `simulator` and `loss` are declared beside the code that they are settings of.

  python -m focal_jax.config docs/configuration.md

writes the reference of all fields, those of each network too.
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
  """What is trained on, and where built data sets lie."""

  # simulated; a data set built by tfds_ddff.build; folder:DIR with a folder of images and target.npy for each stack in
  # DIR/train and DIR/val; or several of them with weights, as in '0.7*ddff12 + 0.3*simulated'.
  source: str = 'simulated'
  # Photographs with depth that become stacks in the training step, beside procedural scenes; with the source simulated
  # alone. nyu_depth, or folder:DIR in a layout of `focal_jax.data.rgbd`; empty: procedural scenes only.
  rgbd: str = ''
  rgbd_share: float = 0.5  # of the stacks, those made of photographs, drawn at random; 0 .. 1
  # Photographs as textures of procedural surfaces, folder:DIR with pictures in it, also in folders of folders; with the
  # source simulated alone. `python -m tfds_ddff.textures` collects free ones. Empty: procedural textures only.
  textures: str = ''
  textures_share: float = 0.5  # of the surfaces, those that carry a part of a photograph, drawn at random; 0 .. 1
  # Numbers of frames of simulated stacks, of which each batch draws one; a number given twice is drawn twice as often.
  # The training step is compiled for each. With the source simulated alone; empty: simulator.num_frames.
  simulated_frames: tuple[int, ...] = ()
  data_dir: str = ''  # folder that data sets were built in, for training, validation and evaluation
  num_threads: int = 16  # that read and crop; the batches do not depend on it
  # Side of the random crop, a multiple of 32 px. This and what follows have no use with the source simulated alone,
  # whose stacks are rendered as they are wanted.
  crop_px: int = 224
  min_valid: float = 0.8  # least share of valid pixels in a crop, 0 .. 1
  num_frames: tuple[int, ...] = ()  # least and greatest number of frames of a batch, drawn at random; empty: all frames
  augment: bool = True  # published photometric and geometric augmentation


@dataclasses.dataclass(frozen=True)
class InitSettings:
  """Weights to start from."""

  depth: str = ''  # a .npz of ours from which the depth network starts; empty: random
  alignment: str = ''  # a .npz of ours from which the alignment network starts; empty: random


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
  """Adam."""

  learning_rate: float = 1e-4  # not published; what others in the field use
  b1: float = 0.9  # decay of the mean of the gradients, a step
  b2: float = 0.99  # decay of the mean of their squares, a step
  warmup_steps: int = 0  # in which the learning rate rises linearly from 0
  schedule: Literal['constant', 'cosine'] = 'constant'  # of the learning rate after that; cosine: to 0 at the last step
  clip_norm: float = 0.0  # gradients of a greater norm are scaled down to it; 0: none are


@dataclasses.dataclass(frozen=True)
class EvalSettings:
  """What `--mode=evaluate` and `--mode=compare` measure on; the folder of data sets is data.data_dir."""

  # examples (ships with the project), the name of a built data set, folder:DIR, or simulated, by the section simulator,
  # or with a camera's own sweep, as in simulated/pixel_6.
  dataset: str = 'examples'
  split: str = 'val'  # of the data set
  # How frames are aligned first. DDFF-12 is refocused from light fields: aligned as it is.
  align: Literal['measured', 'network', 'metadata', 'off'] = 'off'
  # Of frames that a data set is known to label wrongly (DDFF-12): as labelled, corrected, or each method with both.
  focus: Literal['both', 'labelled', 'corrected'] = 'both'
  num_stacks: int = 0  # the first so many of the split; 0: all
  # Beside the network: constant (the mean target of the split train), classical, classical:laplacian and so on.
  baselines: tuple[str, ...] = ('constant', 'classical')
  pictures: int = 5  # stacks of least, and of greatest, error that are drawn


@dataclasses.dataclass(frozen=True)
class Config:
  """A run: the published recipe where it is known (Won and Jeon, ECCV 2022, section 4)."""

  seed: int = 0  # of weights, data and augmentation
  model: ModelSettings = ModelSettings()  # networks, and how frames reach them
  data: DataSettings = DataSettings()  # what is trained on
  # Scenes, cameras and sensor of simulated stacks.
  simulator: SimulatorSettings = SimulatorSettings(height_px=224, width_px=224, margin_px=24)
  # What is trained. both: end to end; depth: alone, on frames as they are; alignment: alone, from known motion.
  networks: Literal['both', 'depth', 'alignment'] = 'both'
  init: InitSettings = InitSettings()  # weights to start from
  batch_size: int = 4  # stacks a step, over all devices of all processes
  accumulate: int = 1  # parts that a device takes its share of the batch in, one after the other, to save memory
  steps: int = 100_000  # of training, all in all
  parallel: Literal['pmap', 'shard_map'] = 'pmap'  # how the step runs on the devices
  compute_dtype: Literal['float32', 'bfloat16'] = 'float32'  # of the networks' activations; parameters are float32
  # Of the networks' convolutions and matrix products in float32. default: the device's, bfloat16 on TPUs and TF32 on
  # recent GPUs; high: bfloat16 in three passes, or TF32; highest: float32. The warp, geometry and statistics are
  # float32 in any case, and so is all on CPUs.
  precision: Literal['default', 'high', 'highest'] = 'default'
  remat: bool = False  # compute each block's activations anew in the backward pass: slower, in less memory
  ema_decay: float = 0.0  # of a moving average of the weights, which is then validated and written; 0: none
  optimizer: OptimizerSettings = OptimizerSettings()  # how weights follow gradients
  loss: LossSettings = LossSettings()  # what is minimised
  max_skipped: int = 20  # steps in a row with a loss or gradient that is not finite, after which the run stops
  log_every: int = 50  # steps from one line of metrics to the next
  checkpoint_every: int = 500  # steps from one checkpoint to the next
  keep_checkpoints: int = 2  # at least 2, so that there is one to fall back to
  validation_every: int = 1000  # steps from one validation to the next
  validation_stacks: int = 32  # stacks that a validation is over
  validation_split: str = 'val'  # of a data set
  validation_seed: int = 0  # of simulated stacks: runs of any seed are measured on the same
  validation_textures: str = ''  # as data.textures, for simulated stacks: photographs that training does not see
  best_metric: str = 'mse'  # of the validation, mse, mae or motion_px: best.npz keeps the weights that had the least
  eval: EvalSettings = EvalSettings()  # what --mode=evaluate measures on


def to_config_dict(config: Config = Config()) -> ConfigDict:
  """The settings as recipes have them, to be changed and handed to training and evaluation."""
  return ConfigDict(dataclasses.asdict(config))


def network(section: Literal['depth', 'align'], name: str, **own: Any) -> ConfigDict:
  """A section `model.depth` or `model.align` with all fields of this network, so that each can be changed.

  Args:
    own: its own fields that are not to have their default.

  Raises:
    InputError: an unknown network or field, or a value that is not allowed.
  """
  return ConfigDict(complete_network(section, {'name': name, **own}))


def check_fields(config: ConfigDict) -> None:
  """InputError naming the first field that no setting has; networks' own are checked where a model is made."""

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
  """Gives networks that the command line names the fields they have, in place of those of the recipe's network.

  Args:
    overrides: the fields that the command line sets, dotted. What it says of the network's own fields stays.

  Raises:
    InputError: an unknown network, or a field that it has not.
  """
  for section in SECTIONS:
    prefix = f'model.{section}.'
    if f'{prefix}name' in overrides:
      given = {field.removeprefix(prefix): value for field, value in overrides.items() if field.startswith(prefix)}
      config.model[section] = network(section, **given)
    elif f'model.{section}' in overrides:
      config.model[section] = ConfigDict(complete_network(section, config.model[section].to_dict()))


def meanings(kind: type) -> dict[str, str]:
  """What the comment at the end of each field's line says, or else the comment in the lines above it."""
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
      return f'any number of {_type_name(parts[0])}'
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


_INTRODUCTION = """# All settings

Made by `make reference` from the dataclasses and their comments (`focal_jax/config.py`).

A recipe in `configs/` begins with `focal_jax.config.to_config_dict()` and changes what it needs. On the command line
every field of the recipe can be set, as in `--config.batch_size=8 --config.optimizer.learning_rate=3e-4`.

The fields of `model.depth` and `model.align` depend on their `name`; a field of another network is an error.

* In a recipe: `config.model.depth = network('depth', 'dfv', level=2)` (`focal_jax.config.network`) has all fields of
  that network; in `config.model.depth = {'name': 'dfv', 'level': 2}` those that are left out have their defaults.
* On the command line: `--config.model.depth.name=curves` chooses that network with its defaults, whatever the recipe
  has. `--config.model.depth="{'name': 'dfv', 'level': 2}"` also sets fields that the recipe's network lacks.
"""


def reference() -> str:
  """The text of docs/configuration.md."""
  return _INTRODUCTION + '\n'.join(_tables(Config, Config(), '')) + '\n'


if __name__ == '__main__':
  if len(sys.argv) != 2:
    sys.exit('expected the file to write, as in: python -m focal_jax.config docs/configuration.md')
  Path(sys.argv[1]).write_text(reference())

"""Variants of a recipe, their runs, and the progress of each run."""

import copy
import dataclasses
import hashlib
import json
import re
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict, FrozenConfigDict

from focal_jax.errors import InputError, one_line
from focal_jax.files.outputs import PARTIAL
from focal_jax.models.registry import complete_network
from focal_jax.training.checkpoints import config_changes

_LONGEST_NAME = 150  # characters; file systems allow 255, with what is added to it
WEIGHTS, _METRICS, _CONFIG = 'weights.npz', 'metrics.jsonl', 'config.json'  # of a run of `focal_jax.training.loop`
_VALIDATION = 'validation/'
_NETWORKS = ('model.depth', 'model.align')


@dataclasses.dataclass(frozen=True)
class Weights:
  """Stands for the weights file of another variant's run with the same seed, as the value of a field."""

  variant: 'Variant'

  def __str__(self):
    return f'weights of {self.variant.label}'


@dataclasses.dataclass(frozen=True, eq=False)
class Variant:
  """Changes to the recipe; `name` is derived from them and safe for file names."""

  overrides: dict[str, Any]
  label: str
  name: str
  report: bool

  @property
  def weights(self) -> Weights:
    return Weights(self)

  @property
  def text(self) -> str:
    return ', '.join(f'{field}={value}' for field, value in self.overrides.items())


class Add:
  """The argument of `sweep(add)`; collects its calls in `variants`."""

  def __init__(self, config: ConfigDict):
    self.config = FrozenConfigDict(config)
    self.variants: list[Variant] = []
    self._base = config

  def __call__(
    self, overrides: Mapping[str, Any] | None = None, /, *, label: str = '', report: bool = True, **more: Any
  ) -> Variant:
    """Declares a variant.

    Args:
      overrides: fields, dotted if they are in sections, with their values; none: the recipe as it is.
      label: name in the table; default: the overrides.
      report: whether it is in the table.
      more: further fields.

    Raises:
      InputError: a field that the config lacks, a value of the wrong type, or a variant declared before.
    """
    given = {**(overrides or {}), **more}
    config, values = copy.deepcopy(self._base), {}
    for field in sorted(given):
      if field == 'seed':
        raise InputError(f'{field} is {given[field]!r} in a variant, expected none: seeds are those of --seeds')
      value = given[field]
      if isinstance(value, Weights):
        if value.variant not in self.variants:
          raise InputError(f'{field} is the weights of a variant of another sweep, expected one of this sweep')
        override(config, field, '')
        values[field] = value
      else:
        values[field] = override(config, field, value)
    variant = Variant(values, '', variant_name(values), report)
    variant = dataclasses.replace(variant, label=label or variant.text or 'as it is')
    for other in self.variants:
      if other.name == variant.name or self._resolved(other) == self._resolved(variant):
        raise InputError(f"variant '{variant.label}' is the same as '{other.label}', expected each once")
      if other.label == variant.label:
        raise InputError(f"two variants have the label '{variant.label}', expected one of its own for each")
    self.variants.append(variant)
    return variant

  def _resolved(self, variant):
    config = copy.deepcopy(self._base)
    for field, value in variant.overrides.items():
      override(config, field, f'?{value.variant.name}' if isinstance(value, Weights) else value)
    return config.to_dict()


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
  """A variant with a seed, in its own folder."""

  variant: Variant
  seed: int
  config: ConfigDict
  workdir: Path
  needs: tuple['Run', ...]  # the runs whose weights it starts from

  @property
  def name(self) -> str:
    return self.workdir.name


def override(config: ConfigDict, field: str, value: Any) -> Any:
  """Sets a dotted field; returns the value as stored, with an int converted for a float field.

  Sections of networks, whose fields depend on their name, are replaced as a whole by a mapping.

  Raises:
    InputError: there is no such field, or it has another type.
  """
  *sections, name = field.split('.')
  section = config
  for part in (*sections, name):
    if not isinstance(section, ConfigDict) or part not in section:
      raise InputError(f"no field '{field}' in the config; expected one of those in the config file")
    parent, section = section, section[part]
  if field in _NETWORKS and isinstance(value, Mapping):
    parent[name] = ConfigDict(complete_network(name, value))
    return dict(value)
  if isinstance(section, ConfigDict):
    raise InputError(f"'{field}' is a section of the config, expected one of its fields: {', '.join(section)}")
  try:
    if None not in (section, value) and isinstance(section, bool) != isinstance(value, bool):  # a bool is an int
      raise TypeError
    parent[name] = value
  except TypeError:
    raise InputError(f'{field} is {value!r}, expected a value of type {type(section).__name__}') from None
  return parent[name]


def variant_name(overrides: Mapping[str, Any]) -> str:
  """Name for folders: the same for the same overrides in any order; letters, digits and `=,._+-~`."""
  name = ','.join(f'{field}={_value_name(overrides[field])}' for field in sorted(overrides)) or 'base'
  return name if len(name) <= _LONGEST_NAME else f'{name[: _LONGEST_NAME - 9]}~{_digest(name)}'


def _value_name(value: Any) -> str:
  if isinstance(value, Weights):
    return value.variant.name.replace('=', '-').replace(',', '+')
  if isinstance(value, Mapping):  # a network
    fields = sorted(item for item in value.items() if item[0] != 'name')
    return f'{value["name"]}~{_digest(repr(fields))}' if fields else value['name']
  text = '+'.join(map(str, value)) if isinstance(value, tuple | list) else str(value)
  safe = re.sub(r'[^A-Za-z0-9._+-]+', '-', text)
  return safe if text and safe == text else f'{safe}~{_digest(repr(value))}'


def _digest(text: str) -> str:
  return hashlib.sha256(text.encode()).hexdigest()[:8]


def declared_variants(config: ConfigDict, sweep: Callable[[Add], None]) -> list[Variant]:
  """The variants declared by `sweep(add)`.

  Raises:
    InputError: see `Add`; also if it declares nothing to report, or raises, with the line where it did.
  """
  add = Add(config)
  try:
    sweep(add)
  except InputError:
    raise
  except Exception as error:  # config files are programs
    frame = traceback.extract_tb(error.__traceback__)[1:2] or traceback.extract_tb(error.__traceback__)
    raise InputError(
      f'{frame[0].filename}, line {frame[0].lineno}: sweep(add) raised {type(error).__name__}: {one_line(error)}'
    ) from error
  if not any(variant.report for variant in add.variants):
    raise InputError('sweep(add) declares no variant for the table, expected at least one')
  return add.variants


def make_runs(config: ConfigDict, variants: Sequence[Variant], workdir: Path, seeds: int) -> list[Run]:
  """All variants with the first seed, then with the next; each after the runs that it depends on."""
  if not isinstance(config.get('seed'), int):
    raise InputError('the config has no field seed, expected a whole number')
  runs = []
  for seed in range(config.seed, config.seed + seeds):
    by_variant = {}
    for variant in variants:
      run_config, needs = copy.deepcopy(config), []
      for field, value in variant.overrides.items():
        if isinstance(value, Weights):
          needs.append(by_variant[value.variant])
          value = str(needs[-1].workdir / WEIGHTS)
        override(run_config, field, value)
      run_config.seed = seed
      by_variant[variant] = Run(variant, seed, run_config, workdir / f'{variant.name},seed={seed}', tuple(needs))
    runs += by_variant.values()
  return runs


@dataclasses.dataclass(frozen=True)
class State:
  """Progress of a run: `metrics` of the validation at its last step, or None; its step, if it has started."""

  metrics: dict[str, float] | None = None
  step: int | None = None

  def describe(self, steps: int) -> str:
    if self.metrics is not None:
      return 'finished'
    return 'to do' if self.step is None else f'interrupted at step {self.step} of {steps}'


def find_state(run: Run) -> State:
  """Reads a run's folder.

  Raises:
    InputError: the folder is not a run's, or a run's of another config.
  """
  if not run.workdir.exists():
    return State()
  if not run.workdir.is_dir():
    raise InputError(f'{run.workdir}: is a file, expected the folder of a run or nothing')
  path = run.workdir / _CONFIG
  if not path.exists():
    if {entry.name for entry in run.workdir.iterdir()} - {
      _CONFIG + PARTIAL
    }:  # partial file of a run killed at its start
      raise InputError(f'{run.workdir}: not a folder of a run (it has no {_CONFIG}); expected one, or nothing')
    return State()
  try:
    found = json.loads(path.read_text())
  except ValueError:
    raise InputError(f'{path}: not the config of a run; move {run.workdir.name} away to train it again') from None
  moved = [field for field, value in run.variant.overrides.items() if isinstance(value, Weights)]
  for field, before, now in config_changes(found, plain_config(run.config)):
    if field in moved and Path(str(before)).parts[-2:] == Path(str(now)).parts[-2:]:
      continue  # the sweep's folder has another place now
    raise InputError(
      f'{run.workdir}: trained with {field} {before!r}, expected {now!r}; choose another --workdir, or move the folder '
      'away'
    )
  metrics = _last_validation(run.workdir / _METRICS, run.config.steps)
  steps = [int(entry.name) for entry in run.workdir.glob('checkpoints/*') if entry.name.isdecimal()]
  return State(metrics if (run.workdir / WEIGHTS).exists() else None, max(steps, default=0))


def find_states(runs: Sequence[Run]) -> dict[Run, State]:
  """States of all runs.

  Raises:
    InputError: see `find_state`; or a run has started from the weights of one that is not finished.
  """
  states = {run: find_state(run) for run in runs}
  for run in runs:
    unfinished = [need.name for need in run.needs if states[need].metrics is None]
    if states[run].step is not None and unfinished:
      raise InputError(f'{run.workdir}: began with weights of {unfinished[0]}, which is not finished; move it away')
  return states


def _last_validation(path: Path, step: int) -> dict[str, float] | None:
  """Metrics of the newest line with a validation at this step, without the prefix `validation/`."""
  found = None
  for line in path.read_text().splitlines() if path.exists() else ():
    try:
      numbers = json.loads(line)
    except ValueError:  # a run was killed while it wrote it
      continue
    if isinstance(numbers, dict) and numbers.get('step') == step:
      metrics = {name: value for name, value in numbers.items() if name.startswith(_VALIDATION)}
      found = {name.removeprefix(_VALIDATION): value for name, value in metrics.items()} or found
  return found


def plain_config(config: ConfigDict) -> dict[str, Any]:
  """The config after conversion to JSON and back."""
  try:
    return json.loads(json.dumps(config.to_dict()))
  except TypeError as error:
    raise InputError(
      f'the config does not fit into JSON ({one_line(error)}), expected numbers, text and tuples'
    ) from None

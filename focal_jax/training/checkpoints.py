"""Checkpoints of a run: the training state, and a note on its progress. The only module that uses Orbax."""

import json
import logging
import shutil
import zlib
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from focal_jax.errors import InputError, RunError, one_line
from focal_jax.files.outputs import PARTIAL, write_whole

log = logging.getLogger(__name__)

_CONFIG = 'config.json'
_FOLDER = 'checkpoints'
_DAMAGED = 'damaged_checkpoints'
_TENSORS, _CHECKSUM = 'tensors', 'crc32'  # in a checkpoint's note, besides what the run put there


class Checkpoints:
  """The checkpoints in a run's folder, for one process.

  A checkpoint counts once it is complete; incomplete ones of a killed run are removed. When there are more than `keep`,
  the oldest are removed, but only after a newer one is complete.
  """

  def __init__(self, workdir: Path, keep: int):
    self._workdir, self._saving = workdir, None
    folder = (workdir / _FOLDER).resolve()
    folder.mkdir(exist_ok=True)
    # One process saves a state that all share, so no barriers are needed.
    alone = ocp.options.MultiprocessingOptions(
      primary_host=jax.process_index(), active_processes={jax.process_index()}, barrier_sync_key_prefix='checkpoints'
    )
    options = ocp.CheckpointManagerOptions(
      max_to_keep=keep, create=False, cleanup_tmp_directories=True, multiprocessing_options=alone
    )
    self._manager = ocp.CheckpointManager(epath.Path(folder), options=options)

  def save(self, step: int, state: Any, note: dict) -> None:
    """Saves asynchronously: the run continues while a copy of the state is written. A step already saved is kept.

    Args:
      step: the step of the state.
      state: a tree of arrays.
      note: additional information, JSON-able.

    Raises:
      RunError: this checkpoint or the previous one could not be written; older ones are intact.
    """
    if step in self._manager.all_steps():
      return
    self.wait()
    state = jax.tree.map(np.array, state)  # a copy: the next step reuses the memory
    needed = sum(x.nbytes for x in jax.tree.leaves(state))
    free = shutil.disk_usage(self._workdir).free
    if free < needed:
      message = f'{needed / 1e6:.0f} MB needed, {free / 1e6:.0f} MB free'
      raise self._write_error(step, message)
    note = note | {_TENSORS: _tensors(state), _CHECKSUM: _checksum(state)}
    self._saving = step
    try:
      self._manager.save(
        step, args=ocp.args.Composite(state=ocp.args.StandardSave(state), note=ocp.args.JsonSave(note))
      )
    except (OSError, ValueError, RuntimeError) as error:
      raise self._write_error(step, one_line(error)) from error

  def wait(self) -> None:
    """Waits until pending writes are complete.

    Raises:
      RunError: writing failed.
    """
    try:
      self._manager.wait_until_finished()
    except (OSError, ValueError, RuntimeError) as error:  # what tensorstore raises for a full disk is a ValueError
      raise self._write_error(self._saving, one_line(error)) from error

  def _write_error(self, step: int, reason: str) -> RunError:
    self._manager.reload()
    good = [one for one in self._manager.all_steps() if one != step]
    rest = f'that of step {max(good)} is intact; make room and start the run again' if good else 'there is none before'
    return RunError(f'{self._workdir / _FOLDER}: the checkpoint of step {step} could not be written ({reason}); {rest}')

  def restore(self, template: Any) -> tuple[Any, dict] | None:
    """(state, note) of the newest intact checkpoint, as NumPy arrays, or None if there is none.

    Damaged checkpoints are moved to `damaged_checkpoints`, with a warning.

    Args:
      template: a tree of arrays, or of their shapes.

    Raises:
      InputError: the checkpoint is intact but of another model or optimiser than `template`.
    """
    wanted = _tensors(template)
    for step in sorted(self._manager.all_steps(), reverse=True):
      try:
        note = self._manager.restore(step, args=ocp.args.Composite(note=ocp.args.JsonRestore())).note
        tensors, checksum = note.pop(_TENSORS), note.pop(_CHECKSUM)
      except Exception as error:  # a damaged file can break whatever reads it
        self._put_aside(step, one_line(error))
        continue
      _compare(self._workdir / _FOLDER / str(step), tensors, wanted)
      shapes = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), template)
      try:
        state = self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(shapes))).state
      except Exception as error:
        self._put_aside(step, one_line(error))
        continue
      if _checksum(state) == checksum:
        return state, note
      self._put_aside(step, 'its numbers are not those that were saved')
    return None

  def _put_aside(self, step: int, reason: str) -> None:
    damaged = self._workdir / _DAMAGED
    damaged.mkdir(exist_ok=True)
    target = damaged / str(step)
    if target.exists():
      shutil.rmtree(target)
    (self._workdir / _FOLDER / str(step)).rename(target)
    self._manager.reload()
    log.warning('the checkpoint of step %d is damaged (%.300s); it is now %s', step, reason, target)

  def close(self) -> None:
    """Waits for pending writes."""
    try:
      self.wait()
    finally:
      self._manager.close()


def _tensors(tree: Any) -> dict[str, str]:
  return {
    jax.tree_util.keystr(path): f'{x.dtype}{list(x.shape)}' for path, x in jax.tree_util.tree_leaves_with_path(tree)
  }


def _checksum(tree: Any) -> int:
  checksum = 0
  for x in jax.tree.leaves(tree):
    checksum = zlib.crc32(np.ascontiguousarray(x), checksum)
  return checksum


def _compare(path: Path, found: dict[str, str], wanted: dict[str, str]) -> None:
  for name in wanted | found:
    if found.get(name) != wanted.get(name):
      raise InputError(
        f"{path}: found {name} as {found.get(name, 'nothing')}, expected {wanted.get(name, 'nothing')}: this run's "
        'model, optimizer or ema_decay was another one; choose another --workdir'
      )


def claim_workdir(workdir: Path, config: dict) -> None:
  """Creates a run's folder with `config` in its config.json, or checks that it belongs to this model.

  Raises:
    InputError: the folder holds something other than a run, or a run of another model; nothing in it is changed.
  """
  path = workdir / _CONFIG
  if path.exists():
    model, wanted = _read_config(path)['model'], _as_json(config)['model']
    if 'depth' in wanted and not isinstance(model.get('depth'), dict):
      raise InputError(
        f'{path}: this run was begun when a model had other fields, {model}; finish it with the version that began it, '
        'or choose another --workdir and begin with its weights (--config.init.depth, --config.init.alignment)'
      )
    if model != wanted:
      raise InputError(f"{path}: this run's model is {model}, expected {wanted}; choose another --workdir")
    return
  if workdir.exists() and (not workdir.is_dir() or {one.name for one in workdir.iterdir()} - {path.name + PARTIAL}):
    raise InputError(f'{workdir}: not a folder of a run (it has no {_CONFIG}); expected a new or an empty folder')
  workdir.mkdir(parents=True, exist_ok=True)
  write_whole(path, json.dumps(config, indent=2) + '\n')


def record_config(workdir: Path, config: dict) -> None:
  """Writes `config` to config.json for the continued run; changed fields are logged."""
  path = workdir / _CONFIG
  changes = config_changes(_read_config(path), _as_json(config))
  for name, before, after in changes:
    log.warning('continuing with %s = %s; it was %s', name, after, before)
  if changes:
    write_whole(path, json.dumps(config, indent=2) + '\n')


def _read_config(path: Path) -> dict:
  try:
    config = json.loads(path.read_text())
    config['model']
  except (ValueError, KeyError, TypeError):
    raise InputError(f'{path}: not the config of a run; expected a new folder or one of this program') from None
  return config


def _as_json(config: dict) -> dict:
  return json.loads(json.dumps(config))


def config_changes(before: Any, after: Any, field: str = '') -> list[tuple[str, Any, Any]]:
  """(dotted field, value before, value after) for all differences between two configs, as JSON."""
  if isinstance(before, dict) and isinstance(after, dict):
    names = [*after, *(name for name in before if name not in after)]
    pairs = [(f'{field}.{name}' if field else name, before.get(name), after.get(name)) for name in names]
    return [change for name, old, new in pairs for change in config_changes(old, new, name)]
  return [] if before == after else [(field, before, after)]

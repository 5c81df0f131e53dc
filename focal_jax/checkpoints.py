"""Checkpoints of a run, by Orbax: the training state and the config it belongs to. Nothing else knows Orbax."""

import json
from pathlib import Path

import jax
import orbax.checkpoint as ocp
from etils import epath

from focal_jax.errors import InputError
from focal_jax.parallel import TrainState

_CONFIG = 'config.json'


class Checkpoints:
  """The checkpoints in a run's folder."""

  def __init__(self, workdir: Path, keep: int):
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
    self._manager = ocp.CheckpointManager(epath.Path(workdir / 'checkpoints').resolve(), options=options)

  def save(self, state: TrainState) -> None:
    """Asynchronous: the run goes on while the state, copied, is written. A step already saved is left as it is."""
    step = int(state.step)
    if step not in self._manager.all_steps():
      self._manager.save(step, args=ocp.args.StandardSave(jax.device_get(state)))

  def restore(self, template: TrainState) -> TrainState | None:
    """The newest state, or None before the first one is saved."""
    step = self._manager.latest_step()
    if step is None:
      return None
    shapes = jax.eval_shape(lambda: template)
    host = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=host), shapes)
    return self._manager.restore(step, args=ocp.args.StandardRestore(shapes))

  def close(self) -> None:
    """Waits for what is still being written."""
    self._manager.wait_until_finished()
    self._manager.close()


def claim_workdir(workdir: Path, config: dict) -> None:
  """Makes a run's folder, or checks that it is this model's.

  Raises:
    InputError: the folder holds something other than a run, or a run of another model; nothing in it is changed.
  """
  path = workdir / _CONFIG
  if path.exists():
    try:
      model = json.loads(path.read_text())['model']
    except (ValueError, KeyError, TypeError):
      raise InputError(f'{path}: not the config of a run; expected a new folder or one of this program') from None
    if model != json.loads(json.dumps(config['model'])):
      raise InputError(f"{path}: this run's model is {model}, expected {config['model']}; choose another --workdir")
    return
  if workdir.exists() and (not workdir.is_dir() or any(workdir.iterdir())):
    raise InputError(f'{workdir}: not a folder of a run (it has no {_CONFIG}); expected a new or an empty folder')
  workdir.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(config, indent=2) + '\n')

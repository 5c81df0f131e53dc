"""Runs a function on many devices, by `jax.pmap` or `jax.shard_map`, in one process or several.

A batch is divided among the devices along a leading axis; every device holds the whole training state. Reductions are
over `AXIS`.
"""

import collections
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from focal_jax.backend import compiler_options
from focal_jax.errors import InputError, one_line

AXIS = 'batch'
KINDS = ('pmap', 'shard_map')


def start_processes(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
  """Joins this process to the others of the run; call it before anything asks JAX for its devices.

  Args:
    coordinator: 'host:port' of process 0. None, like the other arguments: from the environment of the cluster (Cloud
      TPU, GKE, SLURM, Open MPI, Kubernetes; whatever `jax.distributed.initialize` supports).
    num_processes: number of processes.
    process_id: index of this process, from 0.

  Raises:
    InputError: only some of the arguments are given, or there is no cluster.
  """
  given = (coordinator, num_processes, process_id)
  if any(one is None for one in given) and any(one is not None for one in given):
    raise InputError(f'--coordinator, --num_processes and --process_id are {given}, expected all of them or none')
  try:
    jax.distributed.initialize(coordinator, num_processes, process_id)
  except (ValueError, RuntimeError) as error:
    raise InputError(f'processes cannot be joined ({one_line(error)})') from error


class Devices:
  """The devices that share a batch, and how a function runs on each of them.

  Attributes:
    count: number of devices of all processes.
    local_count: number of devices of this process.
    first: index of this process's first device among all.
    platform: their platform, such as 'cpu'.
  """

  def __init__(self, kind: str = 'pmap', devices: Sequence[Any] | None = None):
    """All devices; or the given ones, of one process.

    Raises:
      InputError: `kind` is neither 'pmap' nor 'shard_map'.
    """
    if kind not in KINDS:
      raise InputError(f"parallel is '{kind}', expected one of {', '.join(KINDS)}")
    self._kind, self._chosen = kind, devices
    everywhere = list(devices or jax.devices())
    local = [device for device in everywhere if device.process_index == jax.process_index()]
    self.count, self.local_count, self.first = len(everywhere), len(local), everywhere.index(local[0])
    self.platform = everywhere[0].platform
    # A pmapped function takes and returns arrays on this process's devices.
    mesh = local if kind == 'pmap' else everywhere
    self._mesh = Mesh(np.array(mesh), (AXIS,), axis_types=(AxisType.Auto,))

  def replicate(self, tree: Any) -> Any:
    """Copies a tree of arrays, equal on all processes, to every device."""
    return self._place(tree, PartitionSpec())

  def share(self, tree: Any) -> Any:
    """Distributes a tree of this process's arrays, whose leading axis is that of its devices, one slice per device."""
    return self._place(tree, PartitionSpec(AXIS))

  def _place(self, tree, spec):
    sharding = NamedSharding(self._mesh, spec)
    if sharding.is_fully_addressable:
      return jax.device_put(tree, sharding)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), tree)

  def run(self, function: Callable, *, outputs: Sequence[bool], training: bool = False) -> Callable:
    """Compiles `function(replicated, share)` for every device.

    Args:
      function: returns a tuple; it takes one device's share, without the leading axis.
      outputs: for each result, whether each device has its own share; the other results are equal on all devices.
      training: whether it is a training step: compiled accordingly, and the memory of the first argument, the state,
        is reused for the results.
    """
    donated = (0,) if training else ()
    options = compiler_options(self.platform, training=training)
    # `jax.pmap` does not accept it, and a single device does not need it.
    if self._kind == 'pmap' and not (options and self.count == 1):
      out_axes = tuple(0 if shared else None for shared in outputs)
      return jax.pmap(
        function, AXIS, in_axes=(None, 0), out_axes=out_axes, devices=self._chosen, donate_argnums=donated
      )

    def on_device(replicated, share):
      results = function(replicated, jax.tree.map(lambda x: x[0], share))
      pairs = zip(results, outputs, strict=True)
      return tuple(jax.tree.map(lambda x: x[None], result) if shared else result for result, shared in pairs)

    specs = tuple(PartitionSpec(AXIS) if shared else PartitionSpec() for shared in outputs)
    mapped = jax.shard_map(
      on_device,
      mesh=self._mesh,
      in_specs=(PartitionSpec(), PartitionSpec(AXIS)),
      out_specs=specs,
      check_vma=False,  # with it, the gradient of a sum over devices would be summed over them once more
    )
    return jax.jit(mapped, donate_argnums=donated, compiler_options=options)

  def ahead(self, inputs: Iterable[Any], size: int = 2) -> Iterator[Any]:
    """The inputs, distributed to the devices `size` steps before they are used.

    Transfers overlap with the computation.
    """
    inputs, waiting = iter(inputs), collections.deque()
    for one in itertools.islice(inputs, size):
      waiting.append(self.share(one))
    while waiting:
      yield waiting.popleft()
      for one in itertools.islice(inputs, 1):
        waiting.append(self.share(one))


def local_shares(tree: Any) -> Any:
  """This process's shares of a result, as numpy arrays with a leading axis of its devices."""

  def fetch(x):
    shards = sorted(x.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([np.asarray(shard.data) for shard in shards])

  return jax.tree.map(fetch, tree)


def from_first_process(tree: Any, note: dict) -> tuple[Any, dict]:
  """The values of process 0 for a tree of arrays, which has the same shapes everywhere, and a JSON-able note."""
  if jax.process_count() == 1:
    return tree, note
  text = np.frombuffer(json.dumps(note).encode(), np.uint8)
  length = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
  text = np.resize(text, length)  # other processes only need the length
  tree, text = multihost_utils.broadcast_one_to_all((tree, text))
  return jax.tree.map(np.asarray, tree), json.loads(np.asarray(text).tobytes())

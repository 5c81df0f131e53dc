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
  """Joins this process to the others of the run; before anything else asks JAX for its devices.

  Args:
    coordinator: 'host:port' of process 0; None, like the rest: as the cluster's environment says (Cloud TPU, GKE,
      SLURM, Open MPI, Kubernetes: whatever `jax.distributed.initialize` knows).

  Raises:
    InputError: some of the arguments but not all, or no cluster around.
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
    count: devices of all processes.
    local_count: those of this process.
    first: index of this process's first one among all.
    platform: that they are of, as 'cpu'.
  """

  def __init__(self, kind: str = 'pmap', devices: Sequence[Any] | None = None):
    """All devices; or those given, of one process.

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
    # A pmapped function takes and returns what lies on this process's devices.
    mesh = local if kind == 'pmap' else everywhere
    self._mesh = Mesh(np.array(mesh), (AXIS,), axis_types=(AxisType.Auto,))

  def replicate(self, tree: Any) -> Any:
    """A tree of arrays, the same on every process, on every device."""
    return self._place(tree, PartitionSpec())

  def share(self, tree: Any) -> Any:
    """A tree of this process's arrays, each with a leading axis of its devices, a slice on each of them."""
    return self._place(tree, PartitionSpec(AXIS))

  def _place(self, tree, spec):
    sharding = NamedSharding(self._mesh, spec)
    if sharding.is_fully_addressable:
      return jax.device_put(tree, sharding)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), tree)

  def run(self, function: Callable, *, outputs: Sequence[bool], donate: bool = False) -> Callable:
    """`function(replicated, share)` on every device, compiled.

    Args:
      function: returns a tuple; it sees one device's share, without the leading axis.
      outputs: for each of the results, whether devices have a share of it each; the others are the same on all.
      donate: the memory of the first argument is given up for the results.
    """
    donated = (0,) if donate else ()
    options = compiler_options(self.platform)
    # Which `jax.pmap` does not take; one device needs none of it.
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
    """The same inputs, shared among the devices `size` steps before they are asked for.

    Transfers run while the devices compute.
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
  """What process 0 has of a tree of arrays, alike in shape everywhere, and of a JSON-able note."""
  if jax.process_count() == 1:
    return tree, note
  text = np.frombuffer(json.dumps(note).encode(), np.uint8)
  length = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
  text = np.resize(text, length)  # of other processes: any text of that length
  tree, text = multihost_utils.broadcast_one_to_all((tree, text))
  return jax.tree.map(np.asarray, tree), json.loads(np.asarray(text).tobytes())

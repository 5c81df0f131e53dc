"""Platform-dependent choices, the compilation cache, and the allocator's handling of freed memory.

None of this changes results or parameters. All timings are from one machine: two CPU cores, jax 0.10.2, float32.

| what | CPU | TPU | other platforms |
| --- | --- | --- | --- |
| convolutions (`models.conv.FORM_ON`) | 2-D, frames in the batch | 3-D, columns in the channels | XLA's 3-D |
| XLA's 2-D convolutions | Eigen instead of YNNPACK | | |
| sums in a training step | YNNPACK instead of XLA | | |
| the warp and its derivatives (`interpolation`) | gathers along each axis | matrix products | matrix products |
| Gaussian filters (`focus.classical`, `simulate.filters`) | shifted images | two matrix products | shifted images |
| a batch of simulated stacks (`simulate.stacks`) | one after the other | all at once | all at once |
| radii at which the simulator blurs (`simulate.stacks`) | those needed | all | all |

All but the second and third are chosen at lowering, for the target platform: a program exported on a CPU takes the TPU
form on a TPU. The modules named in the table give the timings.
"""

import ctypes
import functools
import hashlib
import os
import platform
from pathlib import Path

import jax

# Since 0.10 XLA runs 2-D convolutions on CPUs with YNNPACK, which takes 1.1 to 2.4 times as long as Eigen: 67 against
# 29 ms for 32 -> 48 channels, 3 x 3, on (10, 112, 112); weight gradients take 5 to 10 times as long. Matrix products
# stay with YNNPACK. In a training step, so do sums, as in batch normalisation: XLA's own run on one core, and the step
# takes 1.1 to 1.2 times as long with them. In a prediction YNNPACK's sums cost more than they save, because XLA cannot
# fuse them: it would take 1.1 to 1.8 times as long.
#
# Since jaxlib 0.12 XLA can hand convolutions to oneDNN (xla_cpu_experimental_onednn_custom_call). Predictions then take
# 0.84 to 0.89 times as long, but cannot be stored in the compilation cache, and training steps take longer
# (docs/speed.md).
_YNNPACK = 'xla_cpu_experimental_ynn_fusion_type'
_PREDICTION = {_YNNPACK: 'LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT'}
_TRAINING = {_YNNPACK: 'LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE'}


def default_device() -> jax.Device:
  """The device that programs run on by default: `jax.default_device`, otherwise the first of the default backend."""
  chosen = jax.config.jax_default_device  # a device, the name of a platform, or None
  return chosen if isinstance(chosen, jax.Device) else jax.local_devices(backend=chosen)[0]


def compiler_options(platform: str | None = None, *, training: bool = False) -> dict[str, str]:
  """Options for `jax.jit(..., compiler_options=...)`.

  Args:
    platform: target platform as named by JAX, 'cpu', 'gpu' or 'tpu'; None: that of the default device.
    training: for a training step instead of a prediction.

  Returns:
    The options for CPUs; {} for other platforms, or if this version of XLA does not know them.
  """
  if (platform or default_device().platform) != 'cpu' or not _has_ynnpack():
    return {}
  return dict(_TRAINING if training else _PREDICTION)


@functools.cache
def _has_ynnpack() -> bool:
  try:
    with jax.default_device(jax.local_devices(backend='cpu')[0]):
      jax.jit(lambda x: x, compiler_options=_TRAINING).lower(0.0).compile()
  except Exception:  # XLA without YNNPACK raises different types
    return False
  return True


def use_compilation_cache() -> Path | None:
  """Makes JAX cache compiled programs on disk, for later runs. Every command of the project calls this.

  `JAX_COMPILATION_CACHE_DIR` selects another folder, and `JAX_ENABLE_COMPILATION_CACHE=false` turns the cache off. A
  cache folder already set in JAX is kept. The folder may be deleted at any time.

  Returns:
    The folder; None if the cache is off or its folder cannot be created.
  """
  if not jax.config.jax_enable_compilation_cache:
    return None
  if jax.config.jax_compilation_cache_dir:
    return Path(jax.config.jax_compilation_cache_dir)
  try:
    folder = _user_cache() / 'focal_jax' / f'jax-{jax.__version__}-{_processor()}-{_cores()}'
    folder.mkdir(parents=True, exist_ok=True)
  except (OSError, RuntimeError):  # no home folder, or a read-only one: every run compiles
    return None
  jax.config.update('jax_compilation_cache_dir', str(folder))
  return folder


def release_memory() -> None:
  """Returns freed memory to the system. Compiling a network leaves half a gigabyte of small free blocks, which glibc
  would otherwise keep. No effect with other allocators.
  """
  try:
    ctypes.CDLL(None).malloc_trim(0)
  except (AttributeError, OSError, TypeError):
    return


def keep_freed_memory() -> None:
  """Makes glibc keep freed memory, for programs that allocate the same blocks again and again.

  XLA allocates the memory of a training step anew in each step. By default glibc maps and unmaps blocks of this size,
  and Linux zeroes their pages each time: 450,000 pages of 4 kB, which is a fifth of the step time on a CPU, and half of
  the time of reading stacks.

  The process keeps its peak memory. It can grow by the size of the largest block if smaller ones have taken its place.
  Call this early: threads that already have a heap of their own keep it. No effect with other allocators.
  """
  m_trim_threshold, m_mmap_max, m_arena_max = -1, -4, -8  # malloc.h
  try:
    mallopt = ctypes.CDLL(None).mallopt
  except (AttributeError, OSError, TypeError):
    return
  mallopt(m_arena_max, 1)  # per-thread heaps are too small for large blocks, which would be mapped
  mallopt(m_mmap_max, 0)
  mallopt(m_trim_threshold, -1)  # never


def _user_cache() -> Path:
  """The user's cache folder (XDG Base Directory Specification)."""
  given = os.environ.get('XDG_CACHE_HOME', '')
  return Path(given) if Path(given).is_absolute() else Path.home() / '.cache'


def _processor() -> str:
  """Identifies the instruction set: machines may share a home, and code compiled for one can crash on another."""
  try:
    lines = Path('/proc/cpuinfo').read_text().splitlines()
    flags = next(line for line in lines if line.lower().startswith(('flags', 'features')))
  except (OSError, StopIteration):
    flags = platform.processor()
  return f'{platform.machine()}-{hashlib.sha256(flags.encode()).hexdigest()[:8]}'


def _cores() -> int:
  """Number of cores that this process may use. Programs compiled for one core do not use more, and JAX would reuse them
  anywhere.
  """
  return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1

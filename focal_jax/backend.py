"""What differs between the platforms that programs are compiled for; where what was compiled is kept; and what becomes
of freed memory.

Results and parameters do not depend on it. All times are of one machine: two CPU cores, jax 0.10.2, float32.

| what | CPU | TPU | elsewhere |
| --- | --- | --- | --- |
| convolutions (`models.conv.FORM_ON`) | 2-D, frames in the batch | 3-D, columns in the channels | XLA's own 3-D |
| XLA's 2-D convolutions | Eigen's, not YNNPACK's | | |
| the warp and its derivatives (`interpolation`) | gathers along either axis | matrix products | the same |
| windows of focus measures (`focus.classical`) | shifted images | two matrix products | as on a CPU |
| a batch of simulated stacks (`simulate.stacks`) | one after the other | all at once | the same |

All but the second are decided when a program is lowered, by the platform that it is lowered for and not by the
one that it is lowered on: what is exported on a CPU has another form on each platform. What each is worth stands where
it is done.
"""

import ctypes
import functools
import hashlib
import os
import platform
from pathlib import Path

import jax

# From 0.10 on XLA gives 2-D convolutions on CPUs to YNNPACK, which takes 1.1 to 2.4 times as long as Eigen: 67 against
# 29 ms for 32 -> 48 channels, 3 x 3, on (10, 112, 112); in weight gradients 5 to 10 times. Matrix products stay there.
_CPU_OPTIONS = {'xla_cpu_experimental_ynn_fusion_type': 'LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT'}


def default_platform() -> str:
  """The platform that programs are compiled for by default: 'cpu', 'gpu' or 'tpu', as JAX names them.

  `jax.default_device` takes precedence.
  """
  device = jax.config.jax_default_device
  return jax.default_backend() if device is None else getattr(device, 'platform', device)


def compiler_options(platform: str | None = None) -> dict[str, str]:
  """Options for `jax.jit(..., compiler_options=...)`; {} if this version of XLA does not know them.

  Args:
    platform: the target; None: the default one.
  """
  return _known_options() if (platform or default_platform()) == 'cpu' else {}


@functools.cache
def _known_options() -> dict[str, str]:
  try:
    with jax.default_device(jax.local_devices(backend='cpu')[0]):
      jax.jit(lambda x: x, compiler_options=_CPU_OPTIONS).lower(0.0).compile()
  except Exception:  # an XLA without YNNPACK, of whatever type
    return {}
  return _CPU_OPTIONS


def use_compilation_cache() -> Path | None:
  """Caches compiled programs for the next run in a folder of the user; all programs of the project call this.

  `JAX_COMPILATION_CACHE_DIR` sets another folder, `JAX_ENABLE_COMPILATION_CACHE=false` turns the cache off; earlier
  settings of JAX are kept. Deleting the folder is safe at any time.

  Returns:
    The folder; None if the cache is turned off or the folder cannot be created.
  """
  if not jax.config.jax_enable_compilation_cache:
    return None
  if jax.config.jax_compilation_cache_dir:
    return Path(jax.config.jax_compilation_cache_dir)
  try:
    folder = _user_cache() / 'focal_jax' / f'jax-{jax.__version__}-{_processor()}'
    folder.mkdir(parents=True, exist_ok=True)
  except (OSError, RuntimeError):  # a home that cannot be written to, or none: every run compiles
    return None
  jax.config.update('jax_compilation_cache_dir', str(folder))
  return folder


def release_memory() -> None:
  """Returns freed memory to the system: compiling a network leaves half a gigabyte of small blocks, which glibc's
  allocator would otherwise keep. Does nothing with other allocators.
  """
  try:
    ctypes.CDLL(None).malloc_trim(0)
  except (AttributeError, OSError, TypeError):
    return


def keep_freed_memory() -> None:
  """Makes glibc's allocator keep what is freed, for programs that need the same blocks again and again.

  XLA gets the memory of a training step anew each time. By default glibc maps and unmaps blocks of that size, and Linux
  clears their pages each time: 450,000 pages of 4 kB, a fifth of a step's time on a CPU, and half of the time of
  reading stacks.

  The process keeps its peak of memory, and can grow by the largest block when others have taken its place. Call it
  early: threads that already have a heap keep it. Does nothing if the allocator is not glibc's.
  """
  m_trim_threshold, m_mmap_max, m_arena_max = -1, -4, -8  # malloc.h
  try:
    mallopt = ctypes.CDLL(None).mallopt
  except (AttributeError, OSError, TypeError):
    return
  mallopt(m_arena_max, 1)  # heaps of other threads are too small for large blocks, which would be mapped
  mallopt(m_mmap_max, 0)
  mallopt(m_trim_threshold, -1)  # never


def _user_cache() -> Path:
  """The user's cache folder (XDG Base Directory Specification)."""
  given = os.environ.get('XDG_CACHE_HOME', '')
  return Path(given) if Path(given).is_absolute() else Path.home() / '.cache'


def _processor() -> str:
  """Which instructions it knows: a home may be shared by machines, and code for one of them can end in a crash on
  another.
  """
  try:
    lines = Path('/proc/cpuinfo').read_text().splitlines()
    flags = next(line for line in lines if line.lower().startswith(('flags', 'features')))
  except (OSError, StopIteration):
    flags = platform.processor()
  return f'{platform.machine()}-{hashlib.sha256(flags.encode()).hexdigest()[:8]}'

"""Settings shared by all parts of the benchmark."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Settings:
  """Flags of `benchmarks.run`. `torch`: whether PyTorch is available; `counted`: whether cases have their FLOPs and
  bytes.
  """

  frames: int = 10
  height: int = 224
  width: int = 224
  dtype: str = 'float32'
  rounds: int = 7
  peer: bool = True
  torch: bool = True
  compile_peer: bool = False
  memory_gib: float = 16.0
  counted: bool = True

  def shape(self, batch: int = 1) -> tuple[int, int, int, int]:
    return batch, self.frames, self.height, self.width


def multiple_of_32(length: float) -> int:
  """The nearest multiple of 32, at least 32."""
  return 32 * max(int(np.round(length / 32)), 1)


def shape_text(shape: tuple[int, ...]) -> str:
  return '[' + ', '.join(map(str, shape)) + ']'

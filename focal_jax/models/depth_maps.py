"""The output of a depth network inside the end-to-end network."""

import flax.struct
from jaxtyping import Array, Float


@flax.struct.dataclass
class DepthMaps:
  """Output for aligned frames, all float32 and at the frames' resolution; None for what a network does not predict.

  Attributes:
    pyramid: depth maps, coarse to fine, at least one, in the unit of `focus`.
    weights: the focus distribution of the finest map; sums to 1 over the frames.
    confidence: 0 .. 1; None: derived from the spread of `weights` (`stack.confidence_from_spread`).
    all_in_focus: 0 .. 1, in the channel order of the frames.
    defocus: of each frame, on the scale that the network was trained with (`losses.defocus_target`).
  """

  pyramid: tuple[Float[Array, 'B H W'], ...]
  weights: Float[Array, 'B N H W'] | None = None
  confidence: Float[Array, 'B H W'] | None = None
  all_in_focus: Float[Array, 'B H W 3'] | None = None
  defocus: Float[Array, 'B N H W'] | None = None

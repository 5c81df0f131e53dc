"""What a depth network returns to the end-to-end network around it."""

import flax.struct
from jaxtyping import Array, Float


@flax.struct.dataclass
class DepthMaps:
  """Of aligned frames, all float32 and at the frames' resolution; what a network has not is None.

  Attributes:
    pyramid: depth maps, coarse to fine, at least one, in the unit of `focus`.
    weights: the focus distribution of the finest; sums to 1 over the frames.
    confidence: 0 .. 1; None where it is what the spread of `weights` says (`stack.confidence_from_spread`).
    all_in_focus: 0 .. 1, in the channel order of the frames.
    defocus: of each frame, linear: as the network was taught.
  """

  pyramid: tuple[Float[Array, 'B H W'], ...]
  weights: Float[Array, 'B N H W'] | None = None
  confidence: Float[Array, 'B H W'] | None = None
  all_in_focus: Float[Array, 'B H W 3'] | None = None
  defocus: Float[Array, 'B N H W'] | None = None

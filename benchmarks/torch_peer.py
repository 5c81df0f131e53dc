"""The published network in PyTorch, for comparison: the same parameters, the same results, ordinary modules.

`focal_jax` neither needs nor imports it. It is written from the description of the network (Won and Jeon, ECCV 2022),
not from its code, in the style of ordinary PyTorch code; only the module names are the published ones, so that a
published state dict loads directly. PyTorch is not among the requirements; written for 2.13:

  pip install torch

Stacks are [B, 3, N, H, W], far to near, for any number B of stacks and N of frames. Their channels are those that the
weights expect: for the published ones BGR, x / 127.5 - 1, with height and width padded at the bottom and right by -1 to
multiples of 32. This is left to the caller, as are device, `train()`, `eval()`, autocast and compilation.
`model.to(memory_format=torch.channels_last_3d)` works; measure whether it helps. On a CPU, use `use_onednn` when timing
single stacks; otherwise the comparison is unfair to PyTorch.
"""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PYRAMID_WEIGHTS = (0.3, 0.5, 0.7, 1.0)

CUBE, PLANE, FRAMES, POINT = (3, 3, 3), (1, 3, 3), (3, 1, 1), (1, 1, 1)


class Prediction(NamedTuple):
  """`pyramid`: D1 .. D4, each [B, H, W]; `aligned` [B, 3, N, H, W]; `motion` [B, N, 3] (alpha, beta, gamma)."""

  pyramid: list[Tensor]
  aligned: Tensor
  motion: Tensor


def conv(inputs: int, outputs: int, kernel=CUBE, stride: int = 1, dilation: int = 1, bias: bool = False) -> nn.Conv3d:
  """Zero padding on both sides of every axis; stride and dilation apply to height and width."""
  spread = (1, dilation, dilation)
  padding = tuple(d * (k - 1) // 2 for k, d in zip(kernel, spread, strict=True))
  return nn.Conv3d(inputs, outputs, kernel, (1, stride, stride), padding, spread, bias=bias)


def cell(inputs: int, outputs: int, kernel=CUBE, stride: int = 1, dilation: int = 1) -> nn.Sequential:
  return nn.Sequential(conv(inputs, outputs, kernel, stride, dilation), nn.BatchNorm3d(outputs))


def up(inputs: int, outputs: int) -> nn.Sequential:
  """Doubles height and width."""
  doubling = nn.ConvTranspose3d(inputs, outputs, 3, stride=(1, 2, 2), padding=1, output_padding=(0, 1, 1), bias=False)
  return nn.Sequential(doubling, nn.BatchNorm3d(outputs))


def relu() -> nn.ReLU:
  return nn.ReLU(inplace=True)


class PlaneResidual(nn.Module):
  """A residual block for every frame."""

  def __init__(self, channels: int):
    super().__init__()
    self.conv = nn.Sequential(cell(channels, channels, PLANE), relu(), cell(channels, channels, PLANE))

  def forward(self, x: Tensor) -> Tensor:
    return F.relu(x + self.conv(x), inplace=True)


class SharpRegionDetection(nn.Module):
  def __init__(self, channels: int):
    super().__init__()
    self.Focus_Measure = PlaneResidual(channels)
    self.N_ch_attention = nn.Sequential(
      conv(channels, channels, FRAMES), relu(), conv(channels, channels, POINT), relu()
    )

  def forward(self, x: Tensor) -> Tensor:
    x = self.Focus_Measure(x)
    return x + self.N_ch_attention(x)


class EffectiveDownsampling(nn.Module):
  """Halves height and width."""

  def __init__(self, inputs: int, outputs: int):
    super().__init__()
    self.stride_conv = cell(inputs, outputs, stride=2)
    self.max_pooling = nn.Sequential(nn.MaxPool3d((1, 2, 2)), cell(inputs, outputs))

  def forward(self, x: Tensor) -> Tensor:
    return F.relu(self.stride_conv(x) + self.max_pooling(x), inplace=True)


class Aggregation(nn.Module):
  """Features at 1/4 to features at 1/8 with context from 1/16 and 1/32."""

  def __init__(self, c: int):
    super().__init__()
    for scale, outputs in ((8, c), (16, 2 * c), (32, 2 * c)):
      self.add_module(f'dres{scale}_0', nn.Sequential(cell(c, outputs), relu(), cell(outputs, outputs), relu()))
      self.add_module(f'dres{scale}_1', nn.Sequential(cell(outputs, outputs), relu(), cell(outputs, outputs)))
    self.conv1 = conv(c, 2 * c, stride=2)
    self.combine1 = nn.Sequential(cell(4 * c, 2 * c), relu())
    self.conv2 = nn.Sequential(cell(2 * c, 2 * c), relu())
    self.conv3 = conv(2 * c, 4 * c, stride=2)
    self.combine2 = nn.Sequential(cell(6 * c, 4 * c), relu())
    self.conv4 = nn.Sequential(cell(4 * c, 4 * c), relu())
    self.conv8 = up(4 * c, 2 * c)
    self.conv9 = up(2 * c, c)
    self.redir1 = cell(c, c, POINT)
    self.redir2 = cell(2 * c, 2 * c, POINT)
    self.redir3 = cell(4 * c, 4 * c, POINT)  # in the weights, never called

  def _pooled(self, x: Tensor, scale: int) -> Tensor:
    """x at 1/4 to features at 1 / scale."""
    x = self.get_submodule(f'dres{scale}_0')(F.avg_pool3d(x, (1, scale // 4, scale // 4)))
    return self.get_submodule(f'dres{scale}_1')(x) + x

  def forward(self, x: Tensor) -> Tensor:
    x8, x16, x32 = (self._pooled(x, scale) for scale in (8, 16, 32))
    e1 = self.conv2(self.combine1(torch.cat((self.conv1(x8), x16), dim=1)))
    e2 = self.conv4(self.combine2(torch.cat((self.conv3(e1), x32), dim=1)))
    u1 = F.relu(self.conv8(e2) + self.redir2(e1), inplace=True)
    return F.relu(self.conv9(u1) + self.redir1(x8), inplace=True)


class Hourglass(nn.Module):
  """Refines features with skip connections, at 1, 1/2 and 1/4 of their size."""

  def __init__(self, c: int):
    super().__init__()
    self.conv0 = nn.Sequential(cell(2 * c, c), relu())
    self.conv1 = nn.Sequential(cell(c, 2 * c, stride=2), relu())
    self.pre_conv = nn.Sequential(cell(2 * c, 2 * c, POINT), relu())  # in the weights, never called
    self.conv2 = cell(2 * c, 2 * c)
    self.conv3 = nn.Sequential(cell(2 * c, 2 * c, stride=2), relu())
    self.conv4 = nn.Sequential(cell(2 * c, 2 * c), relu())
    self.conv5 = up(2 * c, 2 * c)
    self.conv6 = up(2 * c, c)

  def forward(
    self, x: Tensor, skip: Tensor, presqu: Tensor | None = None, postsqu: Tensor | None = None
  ) -> tuple[Tensor, Tensor]:
    """Returns the correction of x, and the input `presqu` of the next hourglass; its `postsqu` is the correction."""
    p = self.conv0(torch.cat((x, skip), dim=1))
    q = self.conv2(self.conv1(p))
    q = F.relu(q if postsqu is None else q + postsqu, inplace=True)
    o = self.conv5(self.conv4(self.conv3(q)))
    o = F.relu(o + (q if presqu is None else presqu), inplace=True)
    return self.conv6(o), p


class DepthNetwork(nn.Module):
  def __init__(self):
    super().__init__()
    stem = nn.Sequential(cell(3, 8, (1, 9, 9), dilation=2), relu(), SharpRegionDetection(8))
    self.FM_measure = nn.Sequential(OrderedDict(Focus_extraction=stem))
    self.FM_conv1 = nn.Sequential(EffectiveDownsampling(8, 16), SharpRegionDetection(16))
    self.FM_conv2 = nn.Sequential(EffectiveDownsampling(16, 32), SharpRegionDetection(32))
    self.SPP_module = Aggregation(32)
    self.confidence = nn.Sequential(cell(32, 32), relu(), conv(32, 1))
    self.dres0 = nn.Sequential(cell(32, 64), relu(), cell(64, 64), relu())
    self.deconv_1, self.deconv_2, self.deconv_3 = up(64, 32), up(32, 16), up(16, 8)
    self.dres2, self.dres3, self.dres4 = Hourglass(32), Hourglass(16), Hourglass(8)
    self.classif1 = nn.Sequential(conv(32, 1, POINT))
    self.classif2 = nn.Sequential(conv(16, 1, POINT))
    self.classif3 = nn.Sequential(conv(8, 1, POINT))

  def forward(self, stack: Tensor, focus: Tensor) -> list[Tensor]:
    """Depth maps D1 .. D4, each [B, H, W] in the unit of focus, of stack [B, 3, N, H, W] and focus [B, N]."""
    v1 = self.FM_measure(stack)
    v2 = self.FM_conv1(v1)
    v3 = self.FM_conv2(v2)
    x = self.SPP_module(v3)
    scores = [self.confidence(x)]
    x = self.deconv_1(self.dres0(x))
    o, p = self.dres2(x, v3)
    x = x + o
    scores.append(self.classif1(x))
    x = self.deconv_2(x)
    o, p = self.dres3(x, v2, p, o)
    x = x + o
    scores.append(self.classif2(x))
    x = self.deconv_3(x)
    o, _ = self.dres4(x, v1, p, o)
    scores.append(self.classif3(x + o))
    return [depth_from_scores(score, focus, stack.shape[-2:]) for score in scores]


def depth_from_scores(score: Tensor, focus: Tensor, size: Sequence[int]) -> Tensor:
  """Score [B, 1, N, h, w] and focus [B, N] to depth [B, H, W]."""
  score = F.interpolate(score.squeeze(1), size=tuple(size), mode='bilinear', align_corners=False)
  weight = F.softplus(score) + 1e-6
  return (focus[..., None, None] * weight).sum(1) / weight.sum(1)


def displacement_field(fov: Tensor, motion: Tensor, height: int, width: int) -> Tensor:
  """(dx, dy) in pixels, [B, N, 2, H, W], of fov [B, N] and motion [B, N, 3]."""
  alpha, beta, gamma = motion.unbind(-1)
  zoom = (fov + alpha - 1)[..., None]
  dx = (width // 2) * zoom * torch.linspace(-1, 1, width, device=fov.device) + beta[..., None]
  dy = (height // 2) * zoom * torch.linspace(-1, 1, height, device=fov.device) + gamma[..., None]
  return torch.stack(torch.broadcast_tensors(dx[:, :, None, :], dy[..., None]), dim=2)


def warp(stack: Tensor, field: Tensor) -> Tensor:
  """Every frame of stack [B, C, N, H, W] sampled at (x - dx, y - dy), zero outside; field [B, N, 2, H, W]."""
  batch, _, frames, height, width = stack.shape
  x = torch.arange(width, device=field.device) - field[:, :, 0]
  y = torch.arange(height, device=field.device)[:, None] - field[:, :, 1]
  grid = torch.stack((2 * x / (width - 1) - 1, 2 * y / (height - 1) - 1), dim=-1).flatten(0, 1)
  images = stack.transpose(1, 2).flatten(0, 1)
  warped = F.grid_sample(images, grid, mode='bilinear', padding_mode='zeros', align_corners=True)
  return warped.unflatten(0, (batch, frames)).transpose(1, 2)


class Residual(nn.Module):
  """A residual block for every frame, with a convolution as its shortcut."""

  def __init__(self, inputs: int, outputs: int, stride: int = 1):
    super().__init__()
    self.conv = nn.Sequential(cell(inputs, outputs, PLANE, stride), relu(), cell(outputs, outputs, PLANE))
    self.feature = conv(inputs, outputs, POINT, stride)

  def forward(self, x: Tensor) -> Tensor:
    return F.relu(self.feature(x) + self.conv(x), inplace=True)


def motion_head(c: int) -> nn.Sequential:
  inner = 2 * c
  return nn.Sequential(
    *(cell(inner + 2, inner, PLANE), relu(), cell(inner, inner, PLANE), relu(), cell(inner, inner, PLANE), relu()),
    conv(inner, 3, PLANE, bias=True),
  )


class AlignmentNetwork(nn.Module):
  def __init__(self):
    super().__init__()
    self.OF_feature = nn.Sequential(Residual(3, 8), Residual(8, 8))
    self.OF_feature1 = nn.Sequential(Residual(8, 16, stride=2), Residual(16, 16))
    self.OF_feature2 = nn.Sequential(Residual(16, 32, stride=2), Residual(32, 32))
    self.conv1, self.conv2, self.conv3 = motion_head(32), motion_head(16), motion_head(8)
    self.register_buffer('scale', torch.tensor([0.001, 1.0, 1.0]), persistent=False)

  def forward(self, stack: Tensor, fov: Tensor) -> Tensor:
    """Motion [B, N, 3] of stack [B, 3, N, H, W] with fields of view [B, N]; the last frame is the reference."""
    full = self.OF_feature(stack)
    half = self.OF_feature1(full)
    quarter = self.OF_feature2(half)
    motion = fov.new_zeros(*fov.shape, 3)
    for features, head in ((quarter, self.conv1), (half, self.conv2), (full, self.conv3)):
      field = displacement_field(fov, motion, *features.shape[-2:])
      warped = warp(features, field)
      reference = warped[:, :, -1:].expand_as(warped)
      correction = head(torch.cat((reference, warped, field.transpose(1, 2)), dim=1)).mean(dim=(-2, -1))
      motion = motion + self.scale * correction.transpose(1, 2)
    return motion


class EndToEnd(nn.Module):
  """Alignment network, warp, depth network."""

  def __init__(self):
    super().__init__()
    self.DFF_net = DepthNetwork()
    self.optical_flow_aggregation = AlignmentNetwork()

  def forward(self, stack: Tensor, focus: Tensor, fov: Tensor, align: bool = True) -> Prediction:
    """Depth of stack [B, 3, N, H, W] with focus coordinates and relative fields of view [B, N].

    `align` False skips the alignment network and the field-of-view crop; the motion is then zeros.
    """
    if align:
      motion = self.optical_flow_aggregation(stack, fov)
      stack = warp(stack, displacement_field(fov, motion, *stack.shape[-2:]))
    else:
      motion = fov.new_zeros(*fov.shape, 3)
    return Prediction(self.DFF_net(stack, focus), stack, motion)


def load_reference(path: str | Path) -> EndToEnd:
  """The network with the weights of a state dict in the published layout, on the CPU and in `eval()` mode."""
  model = EndToEnd()
  model.load_state_dict(torch.load(path, map_location='cpu', weights_only=True), strict=True)
  return model.eval()


class OneDnnConv3d(nn.Conv3d):
  def forward(self, x: Tensor) -> Tensor:
    return torch.mkldnn_convolution(x, self.weight, self.bias, self.padding, self.stride, self.dilation, self.groups)


def use_onednn(model: nn.Module) -> nn.Module:
  """Makes the convolutions of a model use oneDNN, on a CPU and in float32; returns the model.

  PyTorch chooses oneDNN by itself for two or more stacks. For a single small stack it uses `slow_conv3d` for most
  layers of this network, which takes two to six times as long (PyTorch 2.13, [1, 8 to 32, 10, H, W], H = 224 to 56).
  Transposed convolutions are unchanged.
  """
  for module in model.modules():
    if isinstance(module, nn.Conv3d):
      module.__class__ = OneDnnConv3d  # its parameters are the same
  return model


def training_loss(pyramid: Sequence[Tensor], target: Tensor, valid: Tensor) -> Tensor:
  """Weighted squared error of D1 .. D4, averaged over the valid pixels of the batch.

  Args:
    pyramid: four maps [B, H, W].
    target: [B, H, W]; any value where it is not valid.
    valid: [B, H, W], bool or 0 and 1.
  """
  valid = valid.bool()
  target = torch.where(valid, target, 0)
  # A sum over masked errors: indexing with the mask would make a GPU wait for the host.
  total = sum(w * (valid * (d - target).square()).sum() for w, d in zip(PYRAMID_WEIGHTS, pyramid, strict=True))
  return total / valid.sum().clamp(min=1)

# expect: exp_kernel | overflow unknown
"""A Triton kernel launched by hand inside an autograd function."""

import os
import sys

os.environ.setdefault("TRITON_INTERPRET", "1")

import torch
import triton
import triton.language as tl

REPAIRED = "--repaired" in sys.argv


@triton.jit
def exp_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    x = tl.load(x_ptr + at, mask=inside)
    tl.store(out_ptr + at, tl.exp(x), mask=inside)


class Exp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        out = torch.empty_like(x)
        exp_kernel[(triton.cdiv(x.numel(), 64),)](x, out, x.numel(), BLOCK=64)  # HERE
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx, upstream):
        (out,) = ctx.saved_tensors
        return upstream * out


torch.manual_seed(0)
layer = torch.nn.Linear(4, 4)
optimizer = torch.optim.SGD(layer.parameters(), lr=1e-4)
for step in range(6):
    x = torch.randn(8, 4) * (400.0 if step == 4 else 1.0)
    z = layer(x)
    if REPAIRED:
        z = z.clamp(max=10)
    loss = torch.log1p(Exp.apply(z)).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

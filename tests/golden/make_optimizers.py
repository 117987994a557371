#!/usr/bin/env python3
"""Golden values of optimisers, from PyTorch and from bitsandbytes on the CPU (its portable operators).

    PYTHONDONTWRITEBYTECODE=1 python tests/golden/make_optimizers.py

writes tests/golden/optimizers.safetensors with
    rates                       the learning rate of each step
    NAME.start                  parameters before the first step; those that begin with "plain" do not decay
    NAME.gradients              (steps, elements); in f32: ratios of numbers of few bits fall midway between codes
    NAME.OPTIMIZER.STEP         parameters after some steps of adamw (torch.optim.AdamW), sgd (torch.optim.SGD) and
                                adamw_8bit (bitsandbytes.optim.AdamW8bit)
    NAME.state1, .state2        codes of its moments after the last step, in f32 for a tensor that keeps it so
    NAME.absmax1, .absmax2      scales of their blocks
Versions used for the committed file: torch 2.15.0, bitsandbytes 0.50.2.
"""
import os

import make_quantized  # noqa: F401: bitsandbytes' portable operators, whose codes are the nearest ones
import torch
from bitsandbytes.optim import AdamW8bit
from make_models import HERE
from safetensors.torch import save_file

STEPS = 4
RATES = [1e-3, 2e-3, 1.5e-3, 5e-4]
SHAPES = {"whole": (64, 64), "ragged": (17, 241), "small": (100,), "plain_large": (18, 256), "plain_small": (40,)}
SAVED = (1, STEPS)


def data():
    generator = torch.Generator().manual_seed(11)
    start, gradients = {}, {}
    for name, shape in SHAPES.items():
        start[name] = torch.randn(shape, generator=generator)
        size = torch.logspace(-6, 0, shape[0]).reshape(-1, *[1] * (len(shape) - 1))  # blocks of all sizes
        gradients[name] = (torch.randn((STEPS, *shape), generator=generator) * size)
    gradients["whole"][:, 8:12] = 0  # a block that never gets a gradient
    gradients["ragged"][1:, 3:6] = 0  # and some that get one only once
    return start, gradients


def run(make, start, gradients):
    parameters = {name: torch.nn.Parameter(value.clone()) for name, value in start.items()}
    groups = [{"params": [p for n, p in parameters.items() if n.startswith("plain") == plain],
               "weight_decay": 0.0 if plain else 0.01} for plain in (False, True)]
    optimizer = make(groups)
    saved = {}
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = RATES[step]
        for name, parameter in parameters.items():
            parameter.grad = gradients[name][step].clone()
        optimizer.step()
        if step + 1 in SAVED:
            saved |= {f"{name}.{{}}.{step + 1}": value.detach().clone() for name, value in parameters.items()}
    return saved, {name: optimizer.state[parameter] for name, parameter in parameters.items()}


def main():
    start, gradients = data()
    tensors = {"rates": torch.tensor(RATES)}
    tensors |= {f"{name}.start": value for name, value in start.items()}
    tensors |= {f"{name}.gradients": value for name, value in gradients.items()}
    for optimizer, make in {"adamw": torch.optim.AdamW, "sgd": lambda groups: torch.optim.SGD(groups, lr=1),
                            "adamw_8bit": AdamW8bit}.items():
        saved, states = run(make, start, gradients)
        tensors |= {key.format(optimizer): value for key, value in saved.items()}
    for name, state in states.items():
        tensors |= {f"{name}.{key}": state[key] for key in ("state1", "state2", "absmax1", "absmax2") if key in state}
    save_file({key: value.contiguous() for key, value in tensors.items()},
              os.path.join(HERE, "optimizers.safetensors"))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Golden values of weights in 4 and 8 bits, from bitsandbytes on the CPU.

    PYTHONDONTWRITEBYTECODE=1 python tests/golden/make_quantized.py [NAME...]

writes
    tests/golden/quantized.safetensors          "map": the 256 values of the nested map; and for each CASE and CODE
        CASE.weight                             what is quantised
        CASE.CODE.code, .scale                  packed bytes and absmax of nf4 and fp4; rows and row_stats of int8
        CASE.CODE.scale_code, .scale_scale, .scale_mean     the same absmax, quantised itself
        CASE.CODE.f32 / .bf16                   dequantised from code and scale, as the dtype of the weight says
        CASE.CODE.nested                        dequantised from code and the nested scales
    tests/golden/models/NAME/quantized.json     losses of the rows of golden.json with weights in CODE; with the adapter,
                                                the loss of the first window
    tests/golden/models/NAME/quantized.safetensors   "CODE.<name>": the window's gradient of every LoRA tensor
The models are those of make_models.py, in training mode, in which nothing is dropped. In 4 bits they are bitsandbytes'
Linear4bit under PEFT's LoRA, as QLoRA runs them; in 8 bits their weights are dequantised, because bitsandbytes' own layer quantises activations as well.
Versions used for the committed files: torch 2.15.0, transformers 5.24.0, peft 0.21.2, bitsandbytes 0.50.2.
"""
import json
import math
import os
import sys

os.environ["TORCHDYNAMO_DISABLE"] = "1"
import torch

import bitsandbytes
from bitsandbytes import functional
from make_models import HERE, sums, saved_name, window_loss
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

# bitsandbytes' portable operators, whose values are those of its GPU kernels, instead of its CPU library, which
#   takes the nested code of a table of 65,536 steps: 0.15% of the codes are a neighbour of the nearest;
#   takes scales of other blocks when it dequantises rows of more than 64 columns that are no multiple of 64.
PORTABLE = torch._C.DispatchKeySet(torch._C.DispatchKey.CompositeExplicitAutograd)
OVERRIDE = torch.library.Library("bitsandbytes", "IMPL")
for operator in ("quantize_blockwise", "dequantize_blockwise", "dequantize_4bit"):
    OVERRIDE.impl(operator, lambda *arguments, call=getattr(torch.ops.bitsandbytes, operator).default:
                  call.redispatch(PORTABLE, *arguments), "CPU", allow_override=True)

# Every family in 4 bits, every form of weights in several families; Phi-2 and Qwen 2.5 have biases, Phi-3 stores several
# modules as one weight, which is quantised as one.
MODELS = {"tied-gqa": ["nf4", "nf4-nested", "fp4", "fp4-nested", "int8"], "untied-llama3-rope": ["nf4-nested"],
          "bias-linear-rope": ["nf4"], "mistral": ["nf4", "int8"], "qwen2.5": ["nf4-nested", "int8"], "qwen3": ["nf4"],
          "gemma": ["nf4", "fp4"], "gemma2": ["nf4-nested", "int8"], "gemma3": ["fp4-nested"], "gemma3-vision": ["nf4"],
          "phi3": ["nf4", "fp4-nested", "int8"], "phi2": ["nf4-nested", "int8"]}


def thresholds(name):
    """A block of every threshold and its neighbours on either side, and another of the largest values of both signs."""
    code = functional.get_4bit_type(name, device="cpu").sort().values
    middle = (code[:-1] + code[1:]) / 2
    first = torch.cat([middle, middle.nextafter(torch.tensor(2.0)), middle.nextafter(torch.tensor(-2.0)),
                       torch.linspace(-1, 1, 19)])
    return torch.stack([first, torch.tensor([3.0, -3.0] * 32), -first * 0.37])


def cases():
    generator = torch.Generator().manual_seed(5)
    random = lambda *shape: torch.randn(shape, generator=generator)
    holes = random(6, 64) * 0.02
    holes[1] = 0
    holes[4] = 0
    holes[2, 3:] = 0
    return {
        "blocks": (random(8, 64) * 0.05).bfloat16(),
        "rows_across_blocks": (random(7, 40) * 0.1).half(),
        "wide_rows_across_blocks": (random(6, 96) * 0.1).bfloat16(),
        "odd": random(5, 13),
        "one": torch.tensor([[-0.25]]),
        "holes": holes.bfloat16(),
        "nothing": torch.zeros(2, 40),
        "tiny": random(2, 64) * 1e-39,
        "nf4_thresholds": thresholds("nf4"),
        "fp4_thresholds": thresholds("fp4"),
        "two_nested_blocks": (random(65, 256) * random(65, 1).exp() * 0.02).bfloat16(),
    }


def quantize(weight, code, tensors, key):
    dequantized = "f32" if weight.dtype == torch.float32 else "bf16"
    output = torch.float32 if dequantized == "f32" else torch.bfloat16
    if code == "int8":
        rows, scale, _ = functional.int8_vectorwise_quant(weight)
        silent = scale == 0
        rows[silent] = 0  # 0 * infinity is not a number, which has no defined integer
        tensors |= {key + ".code": rows, key + ".scale": scale,
                    key + "." + dequantized: functional.int8_vectorwise_dequant(rows, scale).to(output)}
        return
    packed, state = functional.quantize_4bit(weight, blocksize=64, quant_type=code)
    _, nested = functional.quantize_4bit(weight, blocksize=64, quant_type=code, compress_statistics=True)
    state.dtype = nested.dtype = output
    tensors |= {key + ".code": packed.flatten(), key + ".scale": state.absmax, key + ".scale_code": nested.absmax,
                key + ".scale_scale": nested.state2.absmax, key + ".scale_mean": nested.offset.reshape(1),
                key + "." + dequantized: dequantize(packed, state, weight),
                key + ".nested": dequantize(packed, nested, weight)}


def dequantize(packed, state, weight):
    made = functional.dequantize_4bit(packed, state)
    return (made.t() if packed.shape[0] == 1 else made).reshape(weight.shape)


def make_weights():
    tensors = {"map": functional.create_dynamic_map()}
    for name, weight in cases().items():
        tensors[name + ".weight"] = weight
        for code in ("nf4", "fp4", "int8"):
            quantize(weight.clone(), code, tensors, name + "." + code)
    path = HERE / "quantized.safetensors"
    save_file({key: value.contiguous().clone() for key, value in tensors.items()}, path)
    path.chmod(0o644)


def quantized_model(folder, code):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").train()
    for name, module in list(model.named_modules()):
        if not isinstance(module, torch.nn.Linear) or name == "lm_head" or "vision_tower" in name:
            continue
        weight = module.weight.detach()
        if code == "int8":
            rows, scale, _ = functional.int8_vectorwise_quant(weight.clone())
            module.weight.data = functional.int8_vectorwise_dequant(rows, scale)
            continue
        layer = bitsandbytes.nn.Linear4bit(module.in_features, module.out_features, bias=module.bias is not None,
                                           compute_dtype=torch.float32, quant_type=code.split("-")[0],
                                           compress_statistics=code.endswith("nested"))
        layer.weight = bitsandbytes.nn.Params4bit(weight.clone(), requires_grad=False, blocksize=64,
                                                  quant_type=code.split("-")[0],
                                                  compress_statistics=code.endswith("nested"))
        if module.bias is not None:
            layer.bias = torch.nn.Parameter(module.bias.detach(), requires_grad=False)
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, layer.to("cpu"))
    if code != "int8":
        made = [module for module in model.modules() if isinstance(module, bitsandbytes.nn.Linear4bit)]
        assert made and all(module.weight.quant_state is not None for module in made)
        model.is_loaded_in_4bit = True
    return model


def row_losses(model, data):
    with torch.no_grad():
        return [sums(model, row)[0].item() for row in data]


def make_model(name, codes):
    folder = HERE / "models" / name
    golden = json.loads((folder / "golden.json").read_text())
    values, tensors = {}, {}
    for code in codes:
        model = quantized_model(folder, code)
        values[code] = dict(base_loss=row_losses(model, golden["rows"]))
        model = PeftModel.from_pretrained(model, folder / "adapter", is_trainable=True)
        if code != "int8":
            adapted = [module for module in model.modules() if hasattr(module, "lora_A")]
            assert adapted and all("4bit" in type(module).__name__ for module in adapted)
        values[code]["adapter_loss"] = row_losses(model, golden["rows"])
        loss = window_loss(model, golden["rows"], golden["windows"][0])
        loss.backward()
        values[code]["window_loss"] = loss.item()
        for key, value in model.named_parameters():
            if value.requires_grad:
                tensors[code + "." + saved_name(key)] = value.grad.clone()
        away = sum(value["sum"] for value in golden["adapter_loss"]) - sum(values[code]["adapter_loss"])
        assert math.isfinite(loss.item()) and abs(away) > 1e-3, "quantisation changes nothing"
        print(name, code, "window loss %.6f, whole %.6f" % (loss.item(), golden["window_loss"]))
    (folder / "quantized.json").write_text(json.dumps(values, separators=(",", ":")) + "\n")
    save_file(tensors, folder / "quantized.safetensors")
    for path in (folder / "quantized.json", folder / "quantized.safetensors"):
        path.chmod(0o644)


if __name__ == "__main__":
    torch.set_num_threads(1)
    if not sys.argv[1:]:
        make_weights()
    for name in sys.argv[1:] or MODELS:
        make_model(name, MODELS[name])

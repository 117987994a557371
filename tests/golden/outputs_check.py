#!/usr/bin/env python3
"""Trains with every output, and holds each against real PEFT, Transformers, llama.cpp and the gguf package.

    python tests/golden/outputs_check.py TRAINER MODEL_FOLDER [--max-steps N]

Merged weights are compared with PEFT's merge_and_unload, GGUF tensors bit for bit with what the gguf package makes of
the same f32 values, tokens of each GGUF file in llama.cpp with the tokenizer's, and the evaluation loss of each output
in the program that it is for with the one that the run reported. A table of the losses is printed.
"""
import argparse
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
import gguf
import numpy
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import llama_cpp
from make_permutation import permutation
from make_templates import encode
from peft_check import ROWS, loss, train

# How far an evaluation loss may be from the run's own, by what the weights were rounded to; llama.cpp rounds the inputs
# of its products to the same type, too.
TOLERANCE = {"adapter": 1e-4, "merged, f32": 1e-4, "merged, bf16": 1e-2, "GGUF f16": 2e-3, "GGUF q8_0": 5e-2}
LAYER = {"attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
         "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
         "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
OUTER = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight",
         "output.weight": "lm_head.weight"}


def check(condition, *words):
    if not condition:
        sys.exit("FAILED: " + " ".join(str(word) for word in words))


def merge(trainer, model, folder, name, *options):
    subprocess.run([trainer, "merge", "--model", model, "--adapter", str(folder / "out" / "adapter"), "--output",
                    str(folder / name), *options], check=True, stdout=subprocess.DEVNULL, timeout=600)
    return folder / name


def check_weights(model, folder, wide):
    """The merged folders against PEFT's merge."""
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    with torch.no_grad():
        theirs = PeftModel.from_pretrained(base, folder / "out" / "adapter").merge_and_unload().state_dict()
    ours, narrow = load_file(wide / "model.safetensors"), load_file(folder / "out/merged_16bit/model.safetensors")
    check(set(ours) == set(narrow) == set(load_file(pathlib.Path(model) / "model.safetensors")), "other names")
    for name, value in ours.items():
        check((value - theirs[name]).abs().max() < 1e-5, name, "is not what PEFT merges")
        check(narrow[name].dtype == torch.bfloat16 and torch.equal(narrow[name], value.to(torch.bfloat16)),
              name, "is not the f32 value rounded once to bf16")
    return ours


def huggingface(name):
    if name in OUTER:
        return OUTER[name]
    _, layer, part, end = name.split(".")
    return "model.layers.%s.%s.%s" % (layer, LAYER[part], end)


def check_gguf(path, kind, values, config, tokenizer):
    """Bit for bit what the gguf package makes of the merged values; the vocabulary of the tokenizer."""
    reader, seen = gguf.GGUFReader(path), set()
    for tensor in reader.tensors:
        name = huggingface(tensor.name)
        value = values[name].numpy()
        for part, heads in (("q_proj", config.num_attention_heads), ("k_proj", config.num_key_value_heads)):
            if name.endswith(part + ".weight"):
                halves = value.reshape(heads, 2, value.shape[0] // heads // 2, value.shape[1])
                value = halves.swapaxes(1, 2).reshape(value.shape)
        wanted = gguf.GGMLQuantizationType.F32 if value.ndim == 1 else gguf.GGMLQuantizationType[kind]
        check(tensor.tensor_type == wanted, tensor.name, tensor.tensor_type, "is not", wanted)
        check(numpy.array_equal(tensor.data.view(numpy.uint8).ravel(),
                                gguf.quants.quantize(value, wanted).view(numpy.uint8).ravel()), tensor.name,
              "has other bytes than Python's")
        seen.add(name)
    check(seen == set(values), "tensors missing or too many", seen ^ set(values))
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    check(tokens == tokenizer.convert_ids_to_tokens(list(range(len(tokenizer)))), "another vocabulary")
    check(reader.fields["tokenizer.ggml.eos_token_id"].contents() == tokenizer.eos_token_id, "another end token")
    check(reader.fields["tokenizer.chat_template"].contents() == tokenizer.chat_template, "another chat template")
    again = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    for row in ROWS:
        check(again(row["output"])["input_ids"] == tokenizer(row["output"])["input_ids"], "other tokens", row)


def transformers_losses(base, loaded, folder, wide, tokenizer, rows):
    """(output, program, loss) of each output in PEFT or Transformers."""
    networks = (("adapter", "PEFT", PeftModel.from_pretrained(base, folder / "out" / "adapter").eval()),
                ("merged, f32", "Transformers", AutoModelForCausalLM.from_pretrained(wide, dtype=torch.float32)),
                ("merged, bf16", "Transformers", loaded.float()),
                ("GGUF f16", "Transformers",
                 AutoModelForCausalLM.from_pretrained(wide, gguf_file="model.gguf", dtype=torch.float32)),
                ("GGUF q8_0", "Transformers",
                 AutoModelForCausalLM.from_pretrained(folder / "out", gguf_file="model.gguf", dtype=torch.float32)))
    return [(output, program, loss(network, tokenizer, rows, True)[0]) for output, program, network in networks]


def llama_cpp_losses(folder, wide, tokenizer, rows):
    """The same in llama.cpp, which must find the tokenizer's tokens in the rows, too."""
    losses = []
    for output, path in (("GGUF f16", wide / "model.gguf"), ("GGUF q8_0", folder / "out" / "model.gguf")):
        file = llama_cpp.File(path)
        for row in ROWS:
            check(file.tokens(row["output"]) == tokenizer(row["output"])["input_ids"], "llama.cpp's tokens differ", row)
        losses.append((output, "llama.cpp", file.loss([encode(row, tokenizer, True) for row in rows])))
    return losses


def show(model, ours, untrained, losses):
    """One row an output; ends the program when one is too far from what the run said."""
    line = "%-14s %-14s %12s %12s %10s"
    print("%s: evaluation loss %.6f as the run says, %.6f before it" % (model, ours, untrained))
    print(line % ("output", "scored by", "loss", "difference", "may be"))
    for output, program, theirs in losses:
        print(line % (output, program, "%.6f" % theirs, "%.2g" % abs(theirs - ours), "%g" % TOLERANCE[output]))
    for output, program, theirs in losses:
        check(abs(theirs - ours) <= TOLERANCE[output], output, "in", program, "is too far away")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("trainer")
    parser.add_argument("model")
    parser.add_argument("--max-steps", type=int, default=-1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        record = train(arguments.trainer, arguments.model, folder, True, arguments.max_steps,
                       output=["gguf", "adapter", "merged_16bit"])
        ours = record["results"]["evaluations"][-1]["loss"]
        wide = merge(arguments.trainer, arguments.model, folder, "wide", "--dtype", "f32", "--gguf", "f16")
        tokenizer = AutoTokenizer.from_pretrained(arguments.model)
        values = check_weights(arguments.model, folder, wide)
        base = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32)
        check_gguf(folder / "out" / "model.gguf", "Q8_0", values, base.config, tokenizer)
        check_gguf(wide / "model.gguf", "F16", values, base.config, tokenizer)
        again = merge(arguments.trainer, arguments.model, folder, "again", "--gguf", "q8_0")
        for one, other in ((again / "model.gguf", folder / "out" / "model.gguf"),
                           (again / "model.safetensors", folder / "out" / "merged_16bit" / "model.safetensors")):
            check(one.read_bytes() == other.read_bytes(), "merge and run write different", one.name)
        check(json.loads((folder / "out/merged_16bit/config.json").read_text())["dtype" if "dtype" in json.loads(
            (pathlib.Path(arguments.model) / "config.json").read_text()) else "torch_dtype"] == "bfloat16", "dtype")
        rows = [ROWS[index] for index in permutation(7, 1, 0, len(ROWS))[: math.ceil(0.2 * len(ROWS))]]
        loaded = AutoModelForCausalLM.from_pretrained(folder / "out" / "merged_16bit", dtype="auto")
        check(loaded.dtype == torch.bfloat16, "loads as", loaded.dtype)
        with torch.no_grad():
            untrained = loss(base, tokenizer, rows, True)[0]
            losses = transformers_losses(base, loaded, folder, wide, tokenizer, rows)
        losses += llama_cpp_losses(folder, wide, tokenizer, rows)
        show(pathlib.Path(arguments.model).name, ours, untrained, losses)
        check(untrained - ours > 2 * TOLERANCE["GGUF q8_0"], "training changed next to nothing: this compares nothing")


if __name__ == "__main__":
    main()

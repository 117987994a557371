#!/usr/bin/env python3
"""Trains every weight, then a head beside adapters, with every output, and holds each against real Transformers and
llama.cpp.

    python tests/golden/full_check.py TRAINER MODEL_FOLDER [--max-steps N]

The base is made f32 first, so that nothing of what is trained is rounded away where the model's own dtype is kept: its
evaluation loss in Transformers is the one that the run reported. The 16-bit model and the GGUF file are these values,
rounded once.
"""
import argparse
import json
import math
import pathlib
import shutil
import tempfile

from outputs_check import TOLERANCE, check, check_gguf, merge, show
from peft_check import ROWS, loss, train

import llama_cpp
import torch
from make_permutation import permutation
from make_templates import encode
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer


def widen(model, folder):
    """A copy of the model with its weights in f32."""
    shutil.copytree(model, folder, ignore=shutil.ignore_patterns("golden*", "full*", "adapter", "model.safetensors"))
    weights = {name: value.float() for name, value in load_file(pathlib.Path(model) / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["dtype" if "dtype" in config else "torch_dtype"] = "float32"
    (folder / "config.json").write_text(json.dumps(config))
    return weights


def beside(trainer, model, max_steps):
    """A head that was the table of tokens and is trained alone: a weight of its own in what is merged."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        record = train(trainer, model, folder, True, max_steps, modules_to_save=["lm_head"],
                       output=["gguf", "adapter", "merged_16bit"])
        tokenizer = AutoTokenizer.from_pretrained(model)
        rows = [ROWS[index] for index in permutation(7, 1, 0, len(ROWS))[: math.ceil(0.2 * len(ROWS))]]
        merged = AutoModelForCausalLM.from_pretrained(folder / "out/merged_16bit", dtype="auto")
        check(merged.config.tie_word_embeddings is False, "the head is still the table of tokens")
        with torch.no_grad():
            untrained = loss(AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32), tokenizer, rows, True)[0]
            losses = [("merged, bf16", "Transformers", loss(merged.float(), tokenizer, rows, True)[0])]
        file = llama_cpp.File(folder / "out/model.gguf")
        losses.append(("GGUF q8_0", "llama.cpp", file.loss([encode(row, tokenizer, True) for row in rows])))
        show(pathlib.Path(model).name + " with its head", record["results"]["evaluations"][-1]["loss"], untrained, losses)
        merge(trainer, model, folder, "again", "--gguf", "q8_0")
        for one, other in (("model.gguf", "model.gguf"), ("model.safetensors", "merged_16bit/model.safetensors"),
                           ("config.json", "merged_16bit/config.json")):
            check((folder / "again" / one).read_bytes() == (folder / "out" / other).read_bytes(), "merge writes another", one)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("trainer")
    parser.add_argument("model")
    parser.add_argument("--max-steps", type=int, default=-1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        before = widen(arguments.model, folder / "base")
        record = train(arguments.trainer, str(folder / "base"), folder, True, arguments.max_steps, finetuning="full",
                       lora_r=16, lora_alpha=32, use_rslora=False, learning_rate=1e-3,
                       output=["gguf", "adapter", "merged_16bit"])
        ours = record["results"]["evaluations"][-1]["loss"]
        values = load_file(folder / "out/model/model.safetensors")
        narrow = load_file(folder / "out/merged_16bit/model.safetensors")
        check(set(values) == set(narrow) == set(before), "other names")
        check(record["trainable_parameters"] == sum(value.numel() for value in values.values()), "not all are trained")
        for key, value in values.items():
            check(value.dtype == torch.float32 and not torch.equal(value, before[key]), key, "is not trained")
            check(torch.equal(narrow[key], value.to(torch.bfloat16)), key, "is not rounded once to bf16")
        tokenizer = AutoTokenizer.from_pretrained(folder / "out/model")
        rows = [ROWS[index] for index in permutation(7, 1, 0, len(ROWS))[: math.ceil(0.2 * len(ROWS))]]
        networks = (("model", "Transformers", AutoModelForCausalLM.from_pretrained(folder / "out/model", dtype="auto")),
                    ("merged, bf16", "Transformers",
                     AutoModelForCausalLM.from_pretrained(folder / "out/merged_16bit", dtype="auto").float()))
        check(networks[0][2].dtype == torch.float32, "the model loads as", networks[0][2].dtype)
        check_gguf(folder / "out/model.gguf", "Q8_0", values, networks[0][2].config, tokenizer)
        with torch.no_grad():
            untrained = loss(AutoModelForCausalLM.from_pretrained(folder / "base", dtype="auto"), tokenizer, rows, True)[0]
            losses = [(output, program, loss(network, tokenizer, rows, True)[0]) for output, program, network in networks]
        file = llama_cpp.File(folder / "out/model.gguf")
        losses.append(("GGUF q8_0", "llama.cpp", file.loss([encode(row, tokenizer, True) for row in rows])))
        show(pathlib.Path(arguments.model).name + " as a whole", ours, untrained, losses)
        check(untrained - ours > 2 * TOLERANCE["GGUF q8_0"], "training changed next to nothing: this compares nothing")
    beside(arguments.trainer, arguments.model, arguments.max_steps)


if __name__ == "__main__":
    TOLERANCE["model"] = 1e-4
    main()

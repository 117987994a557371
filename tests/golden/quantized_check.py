#!/usr/bin/env python3
"""Trains a QLoRA adapter with modelforge-trainer, loads it in real PEFT over bitsandbytes' 4-bit layers, and compares the
evaluation loss.

    python tests/golden/quantized_check.py TRAINER MODEL_FOLDER [--max-steps N] [--tolerance 1e-4]

Rows, their layout, labels and loss are those of peft_check.py; the quantised model is that of make_quantized.py.
"""
import argparse
import json
import math
import pathlib
import subprocess
import sys
import tempfile

from make_permutation import permutation
from make_quantized import quantized_model
from peft_check import ROWS, loss
import torch
from peft import PeftModel
from transformers import AutoTokenizer


def train(trainer, model, folder, code, max_steps):
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    request = dict(task="text-generation", model_name=model, dataset=str(folder / "rows.jsonl"), bf16=False,
                   strategy="qlora", bnb_4bit_quant_type=code.split("-")[0], use_nested_quant=code.endswith("nested"),
                   learning_rate=5e-3, num_train_epochs=2, max_steps=max_steps, seed=7, lora_r=5, lora_alpha=7,
                   lora_dropout=0.0, gradient_accumulation_steps=3)
    (folder / "request.json").write_text(json.dumps(request))
    subprocess.run([trainer, "run", str(folder / "request.json"), "--output", str(folder / "out")], check=True,
                   stdout=subprocess.DEVNULL, timeout=600)
    return json.loads((folder / "out" / "training.json").read_text())


def peft_loss(model, adapter, rows, code):
    """In training mode, in which nothing is dropped here: in evaluation bitsandbytes packs weights for bf16 on a CPU."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    network = quantized_model(model, code)
    with torch.no_grad():
        base, _ = loss(network, tokenizer, rows, False)
        tuned, _ = loss(PeftModel.from_pretrained(network, adapter).train(), tokenizer, rows, False)
    return base, tuned


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("trainer")
    parser.add_argument("model")
    parser.add_argument("--max-steps", type=int, default=-1)
    parser.add_argument("--tolerance", type=float, default=1e-4)
    arguments = parser.parse_args()
    worst = 0.0
    for code in ("nf4-nested", "fp4"):
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            record = train(arguments.trainer, arguments.model, folder, code, arguments.max_steps)
            held_out = permutation(7, 1, 0, len(ROWS))[: math.ceil(0.2 * len(ROWS))]
            base, tuned = peft_loss(arguments.model, folder / "out" / "adapter", [ROWS[index] for index in held_out],
                                    code)
        ours = record["results"]["evaluations"][-1]["loss"]
        worst = max(worst, abs(ours - tuned))
        print("%s, %s: base %.6f, PEFT with our adapter %.6f, ours %.6f, difference %.2g" % (
            pathlib.Path(arguments.model).name, code, base, tuned, ours, abs(ours - tuned)))
        if abs(base - tuned) < 100 * arguments.tolerance:
            sys.exit("the adapter changes next to nothing: this compares nothing")
    sys.exit(0 if worst <= arguments.tolerance else "more than %g apart" % arguments.tolerance)


if __name__ == "__main__":
    main()

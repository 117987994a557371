#!/usr/bin/env python3
"""Trains an adapter with modelforge-trainer, loads it in real PEFT, and compares the evaluation loss.

    python tests/golden/peft_check.py TRAINER MODEL_FOLDER [--max-steps N] [--continue] [--whole MODULE]...
                                      [--tolerance 1e-4]

With --whole these modules_to_save are trained beside the adapter, and the merged model is held against PEFT's merge.

The evaluation rows (make_permutation.py), their layout and labels (make_templates.py) and the loss (Transformers and
PEFT, f32) are all worked out here again; nothing but the adapter folder and training.json comes from the trainer.
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
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from make_permutation import permutation
from make_templates import encode

COLOURS = ["red", "green", "blue", "white", "black", "yellow", "brown", "grey"]
ROWS = [{"input": "What colour is number %d?" % (7 * index),
         "output": "Number %d is %s%s." % (7 * index, COLOURS[index % 8], ", as ever" if index % 3 else "")}
        for index in range(23)]


def train(trainer, model, folder, chat, max_steps, **more):
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    request = dict(dict(task="text-generation", model_name=model, dataset=str(folder / "rows.jsonl"), bf16=False,
                   use_chat_template=chat, learning_rate=5e-3, num_train_epochs=2, max_steps=max_steps, seed=7,
                   lora_r=5, lora_alpha=7, use_rslora=chat and 'adapter_name_or_path' not in more, gradient_accumulation_steps=3), **more)
    (folder / "request.json").write_text(json.dumps(request))
    subprocess.run([trainer, "run", str(folder / "request.json"), "--output", str(folder / "out")], check=True,
                   stdout=subprocess.DEVNULL, timeout=600)
    return json.loads((folder / "out" / "training.json").read_text())


def peft_loss(model, adapter, rows, chat):
    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    with torch.no_grad():
        base, count = loss(network, tokenizer, rows, chat)
        tuned, _ = loss(PeftModel.from_pretrained(network, adapter).eval(), tokenizer, rows, chat)
    return base, tuned, count


def loss(network, tokenizer, rows, chat):
    total, count = 0.0, 0
    for row in rows:
        tokens, labels = encode(row, tokenizer, chat)
        logits = network(torch.tensor([tokens])).logits[0, :-1].double()
        targets = torch.tensor(labels[1:])
        total += torch.nn.functional.cross_entropy(logits, targets, ignore_index=-100, reduction="sum").item()
        count += int((targets != -100).sum())
    return total / count, count


def whole(trainer, model, modules, max_steps):
    """modules_to_save: ours in PEFT, PEFT's merge of it against ours, and a run that continues from it."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        record = train(trainer, model, folder, True, max_steps, modules_to_save=modules, output=["adapter", "merged_16bit"])
        rows = [ROWS[index] for index in permutation(7, 1, 0, len(ROWS))[: math.ceil(0.2 * len(ROWS))]]
        base, tuned, _ = peft_loss(model, folder / "out" / "adapter", rows, True)
        ours = record["results"]["evaluations"][-1]["loss"]
        network = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
                                            folder / "out" / "adapter")
        theirs = network.merge_and_unload().state_dict()
        merged = AutoModelForCausalLM.from_pretrained(folder / "out" / "merged_16bit", dtype="auto").state_dict()
        if theirs.keys() != merged.keys():
            sys.exit("the merged model has other weights than PEFT's: %s" % (theirs.keys() ^ merged.keys()))
        for key, value in merged.items():
            if value.dtype != torch.bfloat16 or (value.float() - theirs[key]).abs().max() > 0.01 * theirs[key].abs().max():
                sys.exit("%s is not what PEFT merges" % key)
        last = load_file(folder / "out" / "adapter" / "adapter_model.safetensors")
        second = folder / "second"
        second.mkdir()
        again = train(trainer, model, second, True, 1, adapter_name_or_path=str(folder / "out" / "adapter"),
                      learning_rate=1e-30, lora_r=16, lora_alpha=32)
        kept = load_file(second / "out" / "adapter" / "adapter_model.safetensors")
        if kept.keys() != last.keys() or any(not torch.allclose(kept[key], last[key], atol=1e-7) for key in kept):
            sys.exit("the adapter that was continued from is not the one that was written")
    continued = abs(again["results"]["evaluations"][-1]["loss"] - ours)
    print("%s, modules_to_save %s: base %.6f, PEFT with our adapter %.6f, ours %.6f, difference %.2g; continued %.2g"
          % (pathlib.Path(model).name, " ".join(modules), base, tuned, ours, abs(ours - tuned), continued))
    return max(abs(ours - tuned), continued)


def continues(trainer, model):
    """An adapter made by PEFT, with random B and a rank of its own, is what training continues from: after one step of
    next to no learning rate our evaluation loss is PEFT's with that adapter, and the adapter written is that adapter."""
    torch.manual_seed(20260102)
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    made = get_peft_model(network, LoraConfig(r=3, lora_alpha=5, target_modules=["q_proj", "down_proj"], lora_dropout=0.0))
    for name, parameter in made.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        made.save_pretrained(folder / "start")
        record = train(trainer, model, folder, False, 1, adapter_name_or_path=str(folder / "start"),
                       learning_rate=1e-30, lora_r=16, lora_alpha=32)
        held_out = permutation(7, 1, 0, len(ROWS))[: math.ceil(0.2 * len(ROWS))]
        _, tuned, _ = peft_loss(model, folder / "start", [ROWS[index] for index in held_out], False)
        first = load_file(folder / "start" / "adapter_model.safetensors")
        last = load_file(folder / "out" / "adapter" / "adapter_model.safetensors")
        config = json.loads((folder / "out" / "adapter" / "adapter_config.json").read_text())
    if first.keys() != last.keys() or any(not torch.allclose(first[key], last[key], atol=1e-7) for key in first):
        sys.exit("the adapter that was continued from is not the one that was written")
    if (config["r"], config["lora_alpha"], sorted(config["target_modules"])) != (3, 5, ["down_proj", "q_proj"]):
        sys.exit("the adapter's settings were not kept: %s" % config)
    ours = record["results"]["evaluations"][-1]["loss"]
    print("continued from PEFT's adapter: PEFT %.6f, ours %.6f, difference %.2g" % (tuned, ours, abs(ours - tuned)))
    return abs(ours - tuned)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("trainer")
    parser.add_argument("model")
    parser.add_argument("--max-steps", type=int, default=-1)
    parser.add_argument("--continue", dest="continues", action="store_true", help="also continue from an adapter of PEFT's")
    parser.add_argument("--whole", nargs="+", default=[], metavar="MODULE", help="also with these modules_to_save")
    parser.add_argument("--tolerance", type=float, default=1e-4)
    arguments = parser.parse_args()
    worst = continues(arguments.trainer, arguments.model) if arguments.continues else 0.0
    if arguments.whole:
        worst = max(worst, whole(arguments.trainer, arguments.model, arguments.whole, arguments.max_steps))
    for chat in (False, True):
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            record = train(arguments.trainer, arguments.model, folder, chat, arguments.max_steps)
            held_out = permutation(7, 1, 0, len(ROWS))[: math.ceil(0.2 * len(ROWS))]
            base, tuned, count = peft_loss(arguments.model, folder / "out" / "adapter",
                                           [ROWS[index] for index in held_out], chat)
        ours = record["results"]["evaluations"][-1]["loss"]
        difference = abs(ours - tuned)
        worst = max(worst, difference)
        print("%s, chat template %s: %d rows held out, %d labels; base %.6f, PEFT with our adapter %.6f, "
              "ours %.6f, difference %.2g" % (pathlib.Path(arguments.model).name, chat, len(held_out), count, base,
                                              tuned, ours, difference))
        if abs(base - tuned) < 100 * arguments.tolerance:
            sys.exit("the adapter changes next to nothing: this compares nothing")
    sys.exit(0 if worst <= arguments.tolerance else "more than %g apart" % arguments.tolerance)


if __name__ == "__main__":
    main()

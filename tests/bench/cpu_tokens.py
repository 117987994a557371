#!/usr/bin/env python3
"""Training speed on the CPU: modelforge-trainer beside PyTorch + PEFT, the same model, rows, order and batches, in
one command and by turns, so that both meet the same machine.

    python tests/bench/cpu_tokens.py TRAINER MODEL_FOLDER [--steps 10] [--batch 4] [--accumulation 1] [--rounds 2]

LoRA of rank 16 on all linear layers, dropout 0, AdamW. PyTorch runs in bf16 and in f32, padded batches as its data
collator makes them, OMP_NUM_THREADS threads; tokens are counted without padding; the first two steps are left out.
Prints tokens per second (median over rounds), the loss at the last step, and the ratio to PyTorch's better run.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "golden"))
import torch
from make_permutation import permutation
from make_templates import encode
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

SEED, RATE, WARM = 11, 2e-4, 2
WORDS = ("the river carries timber down to the mill and every spring the water rises over the lower path so that "
         "visitors have to take the long way round past the school and the old bakery").split()


def make_rows(count):
    rows = []
    for index in range(count):
        length = 6 + index * 37 % 60
        answer = " ".join(WORDS[(index * 7 + word) % len(WORDS)] for word in range(length))
        rows.append({"input": "Tell me story number %d." % index, "output": answer + "."})
    return rows


def ours(arguments, rows, dtype):
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        request = dict(task="text-generation", model_name=arguments.model, dataset=str(folder / "rows.jsonl"),
                       bf16=dtype == "bf16", max_steps=arguments.steps, eval_split=0, seed=SEED, lora_dropout=0,
                       lora_r=16, lora_alpha=32, learning_rate=RATE, lr_scheduler_type="constant",
                       group_by_length=False, per_device_train_batch_size=arguments.batch,
                       gradient_accumulation_steps=arguments.accumulation)
        (folder / "request.json").write_text(json.dumps(request))
        subprocess.run([arguments.trainer, "run", str(folder / "request.json"), "--output", str(folder / "out")],
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        history = json.loads((folder / "out" / "training.json").read_text())["results"]["history"]
    timed = history[WARM:]
    return sum(step["tokens"] for step in timed) / sum(step["seconds"] for step in timed), history[-1]["loss"]


def pad(samples):
    longest = max(len(tokens) for tokens, _ in samples)
    ids = torch.tensor([tokens + [0] * (longest - len(tokens)) for tokens, _ in samples])
    mask = torch.tensor([[1] * len(tokens) + [0] * (longest - len(tokens)) for tokens, _ in samples])
    labels = torch.tensor([labels + [-100] * (longest - len(labels)) for _, labels in samples])
    return ids, mask, labels


def pytorch(arguments, samples, dtype):
    torch.manual_seed(SEED)
    model = AutoModelForCausalLM.from_pretrained(
        arguments.model, dtype=torch.bfloat16 if dtype == "bf16" else torch.float32)
    model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear",
                                             task_type="CAUSAL_LM"))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.001)
    order = permutation(SEED, 2, 0, len(samples))
    rows, tokens, seconds, last = arguments.batch * arguments.accumulation, 0, 0.0, 0.0
    for step in range(arguments.steps):
        window = [samples[index] for index in order[step * rows:(step + 1) * rows]]
        count = sum(sum(label != -100 for label in labels[1:]) for _, labels in window)
        began, last = time.perf_counter(), 0.0
        for first in range(0, rows, arguments.batch):
            ids, mask, labels = pad(window[first:first + arguments.batch])
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bf16"):
                logits = model(input_ids=ids, attention_mask=mask).logits
            loss = torch.nn.functional.cross_entropy(logits[:, :-1].float().flatten(0, 1), labels[:, 1:].flatten(),
                                                     ignore_index=-100, reduction="sum") / count
            loss.backward()
            last += loss.item()
        torch.nn.utils.clip_grad_norm_(trained, 0.3)
        optimizer.step()
        optimizer.zero_grad()
        if step >= WARM:
            seconds += time.perf_counter() - began
            tokens += sum(len(row) for row, _ in window)
    return tokens / seconds, last


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("trainer")
    parser.add_argument("model")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--accumulation", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count())))
    rows = make_rows(arguments.steps * arguments.batch * arguments.accumulation)
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    samples = [encode(row, tokenizer, False) for row in rows]
    contestants = {(name, dtype): [] for name in ("modelforge", "pytorch") for dtype in ("bf16", "f32")}
    for _ in range(arguments.rounds):
        for (name, dtype), results in contestants.items():
            results.append(ours(arguments, rows, dtype) if name == "modelforge"
                           else pytorch(arguments, samples, dtype))
    speed = {}
    for (name, dtype), results in contestants.items():
        speed[name, dtype] = statistics.median(result[0] for result in results)
        print("%-10s %-4s  %7.1f tokens/s  last loss %.4f" % (name, dtype, speed[name, dtype], results[-1][1]))
    best = max(speed["pytorch", dtype] for dtype in ("bf16", "f32"))
    for dtype in ("bf16", "f32"):
        print("modelforge %s / the better of PyTorch's: %.2f" % (dtype, speed["modelforge", dtype] / best))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Golden values of models that are trained whole, from Transformers.

    python tests/golden/make_full.py            for every name below
    python tests/golden/make_full.py NAME...    only these

The models, rows and windows are those of make_models.py, which runs first. Beside them, in tests/golden/models/<name>/:
    full.json           the training recipe, the loss of the first window, and losses, learning rates and gradient norms
                        of 20 AdamW steps on every weight; which weights Trainer does not decay
    full.safetensors    "gradient.<name>" of every weight for the first window, "after.<name>" after the 20 steps
Weights are f32, read from the bf16 of the files. A tied head is one weight with the table of tokens.
Versions used for the committed files: torch 2.15.0, transformers 5.24.0.
"""
import json
import sys

import make_models
import torch
import transformers
from safetensors.torch import save_file
from transformers import Trainer, get_scheduler

NAMES = ["qwen2", "gemma", "mistral"]
# A weight whose gradient is nearly 0 steps by the sign of rounding errors where epsilon is smaller than they are.
RECIPE = {**make_models.RECIPE, "learning_rate": 1e-3, "weight_decay": 0.1, "adam_epsilon": 1e-5}


def make(name):
    folder = make_models.HERE / "models" / name
    recipe = make_models.MODELS[name]
    golden = json.load(open(folder / "golden.json"))
    data, windows = golden["rows"], golden["windows"]
    model_class = getattr(transformers, recipe.get("family", "Llama") + "ForCausalLM")
    model = model_class.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    model.eval()
    trained = dict(model.named_parameters())
    decayed = set(Trainer.get_decay_parameter_names(None, model))
    full = dict(not_decayed=sorted(set(trained) - decayed), training=[],
                recipe={**RECIPE, "lr_scheduler_type": recipe["schedule"], "warmup_steps": recipe["warmup"],
                        "max_grad_norm": 2.0})
    tensors = {}
    loss = make_models.window_loss(model, data, windows[0])
    loss.backward()
    full["window_loss"] = loss.item()
    for key, value in trained.items():
        tensors["gradient." + key] = value.grad.clone()
        value.grad = None
    groups = [dict(params=[trained[key] for key in trained if (key in decayed) == decays],
                   weight_decay=RECIPE["weight_decay"] if decays else 0.0) for decays in (True, False)]
    optimizer = torch.optim.AdamW(groups, lr=RECIPE["learning_rate"], eps=RECIPE["adam_epsilon"],
                                  betas=(RECIPE["adam_beta1"], RECIPE["adam_beta2"]))
    schedule = get_scheduler(recipe["schedule"], optimizer, recipe["warmup"], RECIPE["steps"])
    for window in windows:
        loss = make_models.window_loss(model, data, window)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(trained.values(), full["recipe"]["max_grad_norm"])
        full["training"].append(dict(loss=loss.item(), gradient_norm=norm.item(),
                                     learning_rate=optimizer.param_groups[0]["lr"]))
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    for key, value in trained.items():
        tensors["after." + key] = value.detach().clone()
    with open(folder / "full.json", "w") as file:
        json.dump(full, file, separators=(",", ":"))
        file.write("\n")
    save_file({key: value.contiguous() for key, value in tensors.items()}, folder / "full.safetensors")
    for path in folder.glob("full.*"):
        path.chmod(0o644)
    print(name, len(trained), "weights, loss %.6f" % full["window_loss"], "norms",
          " ".join("%.3f" % step["gradient_norm"] for step in full["training"]))


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in sys.argv[1:] or NAMES:
        make(name)
    make_models.check_size()

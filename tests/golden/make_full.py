#!/usr/bin/env python3
"""Golden values of weights that are trained whole, all of them or beside adapters, from Transformers and PEFT.

    python tests/golden/make_full.py            for every name below
    python tests/golden/make_full.py NAME...    only these

The models, rows and windows are those of make_models.py, which runs first. Beside them, in tests/golden/models/<name>/:
    full.json           the training recipe, the loss of the first window, and losses, learning rates and gradient norms
                        of 20 AdamW steps on every weight; which weights Trainer does not decay
    full.safetensors    "gradient.<name>" of every weight for the first window, "after.<name>" after the 20 steps
    modules/            where there are modules_to_save: an adapter with them as PEFT saves it, their values a little off
                        the model's
    modules.json, modules.safetensors    as full.json and full.safetensors, of what PEFT trains from there
Weights are f32, read from the bf16 of the files. A tied head is one weight with the table of tokens, until PEFT makes a
copy of one of them.
Versions used for the committed files: torch 2.15.0, transformers 5.24.0, peft 0.21.2.
"""
import json
import sys

import make_models
import torch
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import Trainer, get_scheduler

NAMES = ["qwen2", "gemma", "mistral", "phi2", "opt"]
MODULES = {"qwen2": ["embed_tokens", "q_proj"], "gemma": ["lm_head"], "mistral": ["lm_head", "embed_tokens", "norm"]}
# A weight whose gradient is nearly 0 steps by the sign of rounding errors where epsilon is smaller than they are.
RECIPE = {**make_models.RECIPE, "learning_rate": 1e-3, "weight_decay": 0.1, "adam_epsilon": 1e-5}


def saved_name(name):
    return name.replace(".modules_to_save", "").replace(".default", "")


def train(model, recipe, data, windows, path):
    """Writes PATH.json and PATH.safetensors of what is trained of the model."""
    trained = {saved_name(key): value for key, value in model.named_parameters() if value.requires_grad}
    decayed = {saved_name(key) for key in Trainer.get_decay_parameter_names(None, model)}
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
    with open(path.with_suffix(".json"), "w") as file:
        json.dump(full, file, separators=(",", ":"))
        file.write("\n")
    save_file({key: value.contiguous() for key, value in tensors.items()}, path.with_suffix(".safetensors"))
    print(path, len(trained), "weights, loss %.6f" % full["window_loss"], "norms",
          " ".join("%.3f" % step["gradient_norm"] for step in full["training"]))
    return set(trained)


def adapted(model, name, folder):
    """The model with an adapter and modules_to_save, saved in FOLDER."""
    recipe = make_models.MODELS[name]
    lora = LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, bias="none", modules_to_save=MODULES[name],
                      **{"target_modules": make_models.LINEAR, **recipe["lora"]})
    model = get_peft_model(model, lora)
    generator = torch.Generator().manual_seed(19)
    with torch.no_grad():
        for key, value in model.named_parameters():
            if value.requires_grad:
                noise = torch.randn(value.shape, generator=generator)
                value.copy_(noise * (0.05 if "lora_B" in key else 0.1) if "lora" in key else value + 0.02 * noise)
    model.peft_config["default"].base_model_name_or_path = name
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    model.eval()
    return model


def make(name):
    folder = make_models.HERE / "models" / name
    recipe = make_models.MODELS[name]
    golden = json.load(open(folder / "golden.json"))
    model_class = getattr(transformers, recipe.get("family", "Llama") + "ForCausalLM")
    for kind in ["full"] + (["modules"] if name in MODULES else []):
        model = model_class.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
        model.eval()
        if kind == "modules":
            model = adapted(model, name, folder / kind)
        trained = train(model, recipe, golden["rows"], golden["windows"], folder / kind)
        if kind == "modules":
            saved = set(load_file(folder / kind / "adapter_model.safetensors"))
            assert saved == trained, ("PEFT's names changed", saved ^ trained)
    for path in [*folder.glob("full*"), *folder.glob("modules*"), *folder.glob("modules/*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in sys.argv[1:] or NAMES:
        make(name)
    make_models.check_size()

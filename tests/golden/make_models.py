#!/usr/bin/env python3
"""Golden values of whole models, from Transformers and PEFT.

    python tests/golden/make_models.py            writes tests/golden/models/<name>/ for every name
    python tests/golden/make_models.py NAME...    only these

For each tiny random configuration below (`family` names Transformers' classes, Llama when it is left out):
    config.json, model.safetensors     the base model (weights stored as bf16, computed as f32)
    adapter/                           a LoRA adapter as PEFT saves it, B random so that A's gradient is not 0
    golden.json                        rows (token ids and labels), losses, the training recipe, its losses,
                                       learning rates and gradient norms
    golden.safetensors                 logits of the base and of the adapted model at the last token of each row,
                                       "gradient.<name>" of every LoRA tensor for the first window,
                                       "after.<name>": the same tensors after the recipe's 20 AdamW steps
Each gets the same tokenizer with a chat template (byte-level BPE, 300 tokens).
Versions used for the committed files: torch 2.15.0, transformers 5.24.0, peft 0.21.2, tokenizers 0.23.
Each row is run by itself (no padding), a window's loss is the sum over its labelled tokens divided by their number.
"""
import json
import os
import pathlib
import shutil
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
import transformers
from transformers import get_scheduler

HERE = pathlib.Path(__file__).resolve().parent
VOCABULARY = 300

SMALL = dict(hidden_size=32, intermediate_size=56, num_hidden_layers=2)
MODELS = {
    "tied-gqa": dict(
        config=dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
                    num_key_value_heads=2, tie_word_embeddings=True, rope_theta=10000.0),
        lora=dict(r=4, lora_alpha=8), schedule="cosine", warmup=2, max_grad_norm=2.2),
    "untied-llama3-rope": dict(
        config=dict(hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=4,
                    num_key_value_heads=1, head_dim=16, tie_word_embeddings=False, rope_theta=500000.0,
                    rope_scaling=dict(rope_type="llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                      original_max_position_embeddings=16)),
        lora=dict(r=3, lora_alpha=6, use_rslora=True), schedule="linear", warmup=0, max_grad_norm=2.6),
    "bias-linear-rope": dict(
        config=dict(hidden_size=32, intermediate_size=56, num_hidden_layers=2, num_attention_heads=2,
                    num_key_value_heads=2, tie_word_embeddings=True, attention_bias=True, mlp_bias=True,
                    rope_theta=10000.0, rope_scaling=dict(rope_type="linear", factor=2.0)),
        lora=dict(r=2, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"]),
        schedule="polynomial", warmup=3, max_grad_norm=1.0),
    # Llama 2's shape; most rows are longer than the positions that the scaling starts from.
    "llama-dynamic": dict(
        by_longest=True,
        config=dict(SMALL, num_attention_heads=4, num_key_value_heads=4, tie_word_embeddings=False,
                    max_position_embeddings=12, rope_theta=10000.0, rope_scaling=dict(rope_type="dynamic", factor=4.0)),
        lora=dict(r=2, lora_alpha=4), schedule="linear", warmup=1, max_grad_norm=1.5),
    # `seed` is another one where 17 gives an end token while decoding, or a first gradient near Adam's epsilon, whose
    # step is then noise.
    # Windows are shorter than most rows, so that a layer that ignores its window is seen.
    "mistral": dict(
        family="Mistral",
        config=dict(SMALL, num_attention_heads=4, num_key_value_heads=2, sliding_window=5,
                    tie_word_embeddings=False, rope_theta=10000.0),
        lora=dict(r=2, lora_alpha=4), schedule="cosine", warmup=2, max_grad_norm=1.5),
    # As version 0.2 and later, Nemo: no window, heads of a size of their own.
    "mistral-full": dict(
        family="Mistral",
        config=dict(SMALL, num_attention_heads=4, num_key_value_heads=2, head_dim=12, sliding_window=None,
                    tie_word_embeddings=False, rope_theta=1000000.0),
        lora=dict(r=2, lora_alpha=4), schedule="linear", warmup=2, max_grad_norm=1.5),
    # Qwen 2.5: window fields that are not used.
    "qwen2.5": dict(
        family="Qwen2",
        config=dict(SMALL, num_attention_heads=4, num_key_value_heads=2, use_sliding_window=False, sliding_window=6,
                    max_window_layers=1, tie_word_embeddings=False, rope_theta=1000000.0),
        lora=dict(r=2, lora_alpha=4), schedule="cosine", warmup=1, max_grad_norm=1.5),
    "qwen2": dict(
        family="Qwen2", seed=18,
        config=dict(SMALL, num_attention_heads=4, num_key_value_heads=2, use_sliding_window=True, sliding_window=6,
                    max_window_layers=1, tie_word_embeddings=True,
                    rope_parameters=dict(rope_type="yarn", rope_theta=1000000.0, factor=4.0,
                                         original_max_position_embeddings=32)),
        lora=dict(r=2, lora_alpha=4), schedule="linear", warmup=1, max_grad_norm=1.5),
    "qwen3": dict(
        family="Qwen3", seed=18,
        config=dict(SMALL, num_attention_heads=4, num_key_value_heads=2, head_dim=16, tie_word_embeddings=True,
                    rope_theta=1000000.0),
        lora=dict(r=2, lora_alpha=4), schedule="cosine", warmup=0, max_grad_norm=1.5),
    "gemma": dict(
        family="Gemma",
        config=dict(SMALL, num_attention_heads=4, num_key_value_heads=1, head_dim=16, rope_theta=10000.0),
        lora=dict(r=2, lora_alpha=4), schedule="cosine", warmup=2, max_grad_norm=1.5),
    # Caps so low that scores and logits feel them.
    "gemma2": dict(
        family="Gemma2",
        config=dict(SMALL, num_attention_heads=4, num_key_value_heads=2, head_dim=8, sliding_window=5,
                    query_pre_attn_scalar=24, attn_logit_softcapping=3.0, final_logit_softcapping=4.0,
                    rope_theta=10000.0),
        lora=dict(r=2, lora_alpha=4), schedule="linear", warmup=2, max_grad_norm=1.5),
    "gemma3": dict(
        family="Gemma3", config_class="Gemma3TextConfig",
        config=dict(SMALL, intermediate_size=40, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=1,
                    head_dim=8, sliding_window=5, sliding_window_pattern=3, query_pre_attn_scalar=16,
                    rope_parameters=dict(full_attention=dict(rope_type="linear", factor=8.0, rope_theta=1000000.0),
                                         sliding_attention=dict(rope_type="default", rope_theta=10000.0))),
        lora=dict(r=2, lora_alpha=4), schedule="cosine", warmup=2, max_grad_norm=1.5),
    # A model of text and images, whose text part is trained; the adapter's modules are those of that part alone.
    "gemma3-vision": dict(
        family="Gemma3", model_class="Gemma3ForConditionalGeneration", config_class="Gemma3Config",
        config=dict(SMALL, intermediate_size=40, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
                    head_dim=8, sliding_window=5, sliding_window_pattern=2, query_pre_attn_scalar=8,
                    rope_parameters=dict(full_attention=dict(rope_type="linear", factor=8.0, rope_theta=1000000.0),
                                         sliding_attention=dict(rope_type="default", rope_theta=10000.0))),
        whole=dict(mm_tokens_per_image=4, image_token_index=299, boi_token_index=298, eoi_token_index=297,
                   vision_config=dict(hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
                                      image_size=28, patch_size=14)),
        lora=dict(r=2, lora_alpha=4,
                  target_modules=r"model\.language_model\..*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"),
        schedule="linear", warmup=2, max_grad_norm=1.5),
    "phi3-longrope": dict(
        family="Phi3",
        config=dict(SMALL, num_attention_heads=4, num_key_value_heads=4, tie_word_embeddings=True,
                    rope_parameters=dict(rope_type="longrope", rope_theta=10000.0, partial_rotary_factor=0.75,
                                         short_factor=[1.0, 1.25, 2.5], long_factor=[1.5, 4.0, 16.0]),
                    original_max_position_embeddings=64),
        lora=dict(r=2, lora_alpha=4, target_modules=["qkv_proj", "gate_up_proj"]),
        schedule="cosine", warmup=2, max_grad_norm=1.5),
    "phi3": dict(
        family="Phi3",
        config=dict(SMALL, num_attention_heads=4, num_key_value_heads=2, sliding_window=7, tie_word_embeddings=False,
                    rope_parameters=dict(rope_type="default", rope_theta=10000.0, partial_rotary_factor=0.5),
                    original_max_position_embeddings=128),
        lora=dict(r=2, lora_alpha=4, target_modules=["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]),
        schedule="linear", warmup=2, max_grad_norm=1.5),
    "phi4": dict(
        family="Phi3",
        config=dict(SMALL, num_attention_heads=4, num_key_value_heads=1, sliding_window=None, tie_word_embeddings=False,
                    rope_parameters=dict(rope_type="default", rope_theta=250000.0, partial_rotary_factor=1.0),
                    original_max_position_embeddings=128),
        lora=dict(r=2, lora_alpha=4, target_modules=["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]),
        schedule="cosine", warmup=2, max_grad_norm=1.5),
    # Some rows are longer than the original positions: all take the long factors.
    "phi4-mini": dict(
        family="Phi3", by_longest=True,
        config=dict(SMALL, num_attention_heads=4, num_key_value_heads=2, sliding_window=None, tie_word_embeddings=True,
                    rope_parameters=dict(rope_type="longrope", rope_theta=10000.0, partial_rotary_factor=0.75,
                                         short_factor=[1.0, 1.0, 1.0], long_factor=[1.5, 4.0, 16.0]),
                    original_max_position_embeddings=16),
        lora=dict(r=2, lora_alpha=4, target_modules=["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]),
        schedule="linear", warmup=2, max_grad_norm=1.5),
    "phi2": dict(
        family="Phi",
        config=dict(SMALL, num_attention_heads=4, num_key_value_heads=4, partial_rotary_factor=0.5, layer_norm_eps=1e-5,
                    resid_pdrop=0.0, tie_word_embeddings=False, rope_theta=10000.0),
        lora=dict(r=2, lora_alpha=4, target_modules=["q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"]),
        schedule="cosine", warmup=2, max_grad_norm=1.5),
    # A family that only a provider of others knows: providers/CUSTOM.md builds it.
    "opt": dict(
        family="OPT",
        config=dict(hidden_size=32, ffn_dim=56, num_hidden_layers=2, num_attention_heads=4, word_embed_proj_dim=32,
                    dropout=0.0, activation_function="relu"),
        lora=dict(r=2, lora_alpha=4, target_modules=["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]),
        schedule="cosine", warmup=2, max_grad_norm=1.5),
}
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
RECIPE = dict(steps=20, accumulation=2, learning_rate=2e-3, weight_decay=0.01,
              adam_beta1=0.9, adam_beta2=0.999, adam_epsilon=1e-8)
LENGTHS = [11, 7, 19, 5, 13, 2, 23, 9]
# Micro-batches of the 20 steps: two a window, of one to three rows, so that counts and lengths vary.
WINDOWS = [[[step % 8, (step * 3 + 1) % 8], [(step * 5 + 2) % 8] + ([(step + 4) % 8] if step % 2 else [])]
           for step in range(RECIPE["steps"])]


def rows(generator):
    made = []
    for length in LENGTHS:
        tokens = torch.randint(0, VOCABULARY, (length,), generator=generator).tolist()
        prompt = max(1, length // 3)
        made.append(dict(tokens=tokens, labels=[-100] * prompt + tokens[prompt:]))
    return made


by_longest = False


def logits_of(model, row):
    """Logits at the row's tokens. Where the rotary positions of all rows follow the longest one, the row is filled up
    behind its end, where nothing sees it."""
    tokens = row["tokens"] + [0] * ((max(LENGTHS) if by_longest else 0) - len(row["tokens"]))
    return model(torch.tensor([tokens])).logits[0, : len(row["tokens"])].float()


def sums(model, row):
    """Sum of the cross-entropy over the row's labelled tokens, and their number."""
    labels = torch.tensor([row["labels"]])
    logits = logits_of(model, row)[:-1]
    loss = torch.nn.functional.cross_entropy(logits, labels[0, 1:], ignore_index=-100, reduction="sum")
    return loss, int((labels[0, 1:] != -100).sum())


def window_loss(model, data, window):
    parts = [sums(model, data[index]) for batch in window for index in batch]
    return sum(part[0] for part in parts) / sum(part[1] for part in parts)


def saved_name(name):
    return name.replace(".default", "")


def make(name, recipe):
    global by_longest
    by_longest = recipe.get("by_longest", False)
    folder = HERE / "models" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(recipe.get("seed", 17))
    torch.manual_seed(17)
    family = recipe.get("family", "Llama")
    model_class = getattr(transformers, recipe.get("model_class", family + "ForCausalLM"))
    common = dict(vocab_size=VOCABULARY, max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=None,
                  attn_implementation="eager", **({} if family in ("Phi", "OPT") else dict(rms_norm_eps=1e-5)))
    described = {**common, **recipe["config"]}
    if "whole" in recipe:
        described = dict(text_config=described, **recipe["whole"])
    config = getattr(transformers, recipe.get("config_class", family + "Config"))(**described)
    model = model_class(config)
    unit_norm = 0.0 if family.startswith("Gemma") else 1.0  # Gemma adds 1 to the weights of its norms
    with torch.no_grad():
        for key, weight in model.named_parameters():
            scale = 0.3 if "norm" in key else 0.12
            middle = unit_norm if "norm" in key and not key.endswith(".bias") else 0.0
            values = torch.randn(weight.shape, generator=generator) * scale + middle
            weight.copy_(values.to(torch.bfloat16).float())
    model.to(torch.bfloat16).save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    model = model_class.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    model.eval()
    data = rows(generator)
    tensors, golden = {}, dict(rows=data, base_loss=[], windows=WINDOWS,
                           recipe={**RECIPE, "lr_scheduler_type": recipe["schedule"],
                                   "warmup_steps": recipe["warmup"], "max_grad_norm": recipe["max_grad_norm"]})
    with torch.no_grad():
        for index, row in enumerate(data):
            loss, count = sums(model, row)
            golden["base_loss"].append(dict(sum=loss.item(), count=count))
        tensors["logits.base"] = torch.stack([logits_of(model, row)[-1] for row in data])

    lora = LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, bias="none",
                      **{"target_modules": LINEAR, **recipe["lora"]})
    model = get_peft_model(model, lora)
    trained = {key: value for key, value in model.named_parameters() if value.requires_grad}
    with torch.no_grad():
        for key, value in trained.items():
            value.copy_(torch.randn(value.shape, generator=generator) * (0.05 if "lora_B" in key else 0.1))
    model.peft_config["default"].base_model_name_or_path = name
    model.save_pretrained(folder / "adapter")
    (folder / "adapter" / "README.md").unlink(missing_ok=True)
    model.eval()
    with torch.no_grad():
        golden["adapter_loss"] = []
        for row in data:
            loss, count = sums(model, row)
            golden["adapter_loss"].append(dict(sum=loss.item(), count=count))
        tensors["logits.adapter"] = torch.stack(
            [logits_of(model, row)[-1] for row in data])

    loss = window_loss(model, data, WINDOWS[0])
    loss.backward()
    golden["window_loss"] = loss.item()
    for key, value in trained.items():
        tensors["gradient." + saved_name(key)] = value.grad.clone()
        value.grad = None

    optimizer = torch.optim.AdamW(trained.values(), lr=RECIPE["learning_rate"], eps=RECIPE["adam_epsilon"],
                                  betas=(RECIPE["adam_beta1"], RECIPE["adam_beta2"]),
                                  weight_decay=RECIPE["weight_decay"])
    schedule = get_scheduler(recipe["schedule"], optimizer, recipe["warmup"], RECIPE["steps"])
    golden["training"] = []
    for window in WINDOWS:
        loss = window_loss(model, data, window)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(trained.values(), recipe["max_grad_norm"])
        golden["training"].append(dict(loss=loss.item(), gradient_norm=norm.item(),
                                       learning_rate=optimizer.param_groups[0]["lr"]))
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    for key, value in trained.items():
        tensors["after." + saved_name(key)] = value.detach().clone()
    with open(folder / "golden.json", "w") as file:
        json.dump(golden, file, separators=(",", ":"))
        file.write("\n")
    save_file({key: value.contiguous() for key, value in tensors.items()}, folder / "golden.safetensors")
    check = load_file(folder / "adapter" / "adapter_model.safetensors")
    assert {saved_name(key) for key in trained} == set(check), "PEFT's names changed"
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    print(name, "loss %.6f" % golden["window_loss"], "norms",
          " ".join("%.3f" % step["gradient_norm"] for step in golden["training"]))


def make_tokenizer(folder):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(specials + alphabet)}
    merges = []
    for pair in ["Ġ t", "h e", "i n", "o n", "Ġ a", "r e", "e r", "Ġt he", "Ġ i", "a n", "s t", "Ġ s", "o r", "e n",
                 "Ġ w", "Ġ c", "a t", "i s", "o u", "Ġ o", "in g", "Ġ b", "Ġ f", "l l", "Ġ m", "Ġ p", "a l", "i t",
                 "an d", "Ġ d", "e s", "Ġ h", "u s", "a s", "i c", "Ġ l", "c t", "Ġ n", "r o", "Ġ re", "Ġ g"]:
        left, right = pair.split(" ")
        merges.append((left, right))
        vocabulary[left + right] = len(vocabulary)
    assert len(vocabulary) == VOCABULARY, len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.add_special_tokens(specials)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    template = ("{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + "
                "'<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
                "{% endif %}")
    with open(folder / "tokenizer_config.json", "w") as file:
        json.dump(dict(tokenizer_class="PreTrainedTokenizerFast", bos_token="<|im_start|>", eos_token="<|im_end|>",
                       unk_token="<|endoftext|>", chat_template=template, model_max_length=128), file, indent=1)
        file.write("\n")


def check_size():
    size = sum(path.stat().st_size for path in (HERE / "models").rglob("*") if path.is_file())
    print("bytes", size)
    sys.exit(size > 6_000_000)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in sys.argv[1:] or MODELS:
        make(name, MODELS[name])
        make_tokenizer(HERE / "models" / name)
    check_size()

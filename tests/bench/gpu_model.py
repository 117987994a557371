#!/usr/bin/env python3
"""A model folder of a real shape with random bf16 weights, and the rows of the GPU benchmarks.

usage: gpu_model.py model SHAPE TOKENIZER_FOLDER OUT_FOLDER     SHAPE: 135m, 3b, 8b
       gpu_model.py rows TEXT_FILE OUT_FOLDER                   long.jsonl (W1), short.jsonl (W2)
"""
import json
import math
import pathlib
import random
import shutil
import sys

SHAPES = {  # width, inner, layers, heads, key heads, head size, vocabulary, tied, theta
    "135m": (576, 1536, 30, 9, 3, 64, 49152, True, 1e5),  # SmolLM2-135M
    "3b": (3072, 8192, 28, 24, 8, 128, 128256, True, 5e5),  # Llama-3.2-3B
    "8b": (4096, 14336, 32, 32, 8, 128, 128256, False, 5e5),  # Llama-3.1-8B
}


def make_model(shape, tokenizer, out):
    import torch
    from safetensors.torch import save_file

    width, inner, layers, heads, key_heads, size, vocabulary, tied, theta = SHAPES[shape]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator(device=device).manual_seed(1)

    def weight(rows, columns):
        values = torch.randn(rows, columns, device=device, generator=generator) * 0.02
        return values.to(torch.bfloat16).cpu()

    ones = torch.ones(width, dtype=torch.bfloat16)
    tensors = {"model.embed_tokens.weight": weight(vocabulary, width), "model.norm.weight": ones.clone()}
    if not tied:
        tensors["lm_head.weight"] = weight(vocabulary, width)
    for layer in range(layers):
        at = f"model.layers.{layer}."
        for name, rows, columns in (
            ("self_attn.q_proj", heads * size, width), ("self_attn.k_proj", key_heads * size, width),
            ("self_attn.v_proj", key_heads * size, width), ("self_attn.o_proj", width, heads * size),
            ("mlp.gate_proj", inner, width), ("mlp.up_proj", inner, width), ("mlp.down_proj", width, inner)):
            tensors[f"{at}{name}.weight"] = weight(rows, columns)
        tensors[at + "input_layernorm.weight"] = ones.clone()
        tensors[at + "post_attention_layernorm.weight"] = ones.clone()
    out.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer / name, out)
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    (out / "config.json").write_text(json.dumps({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": width,
        "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": key_heads, "head_dim": size, "vocab_size": vocabulary,
        "tie_word_embeddings": tied, "rms_norm_eps": 1e-5, "rope_theta": theta, "hidden_act": "silu",
        "max_position_embeddings": 8192, "torch_dtype": "bfloat16", "bos_token_id": 1, "eos_token_id": 2,
        "attention_bias": False, "mlp_bias": False}))


def make_rows(text, out):
    choose = random.Random(7)
    words = text.read_text().split()

    def some(count):
        return " ".join(choose.choice(words) for _ in range(count))

    def write(name, lengths):
        with open(out / name, "w") as file:
            for before, after in lengths:
                file.write(json.dumps({"input": some(before), "output": some(after)}) + "\n")

    out.mkdir(parents=True, exist_ok=True)
    write("long.jsonl", [(60, 5200)] * 64)
    short = [min(380, max(8, round(math.exp(choose.gauss(4.29, 0.65))))) for _ in range(1000)]
    write("short.jsonl", [(max(3, count // 3), max(3, count - count // 3)) for count in short])


def main():
    if len(sys.argv) == 5 and sys.argv[1] == "model" and sys.argv[2] in SHAPES:
        make_model(sys.argv[2], pathlib.Path(sys.argv[3]), pathlib.Path(sys.argv[4]))
    elif len(sys.argv) == 4 and sys.argv[1] == "rows":
        make_rows(pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]))
    else:
        sys.exit(__doc__)


main()

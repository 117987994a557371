#!/usr/bin/env python3
"""Golden values of rotary positions, from Transformers: tests/golden/ropes.json.

    python tests/golden/make_ropes.py

For each configuration, sized as a released model where there is one: the frequencies and the factor of cosines and sines
that Transformers computes for rows of several lengths, with config.json in the old spelling (`rope_theta`,
`rope_scaling`) and in the new one (`rope_parameters`, as Transformers 5 writes it).
Versions used for the committed file: torch 2.15.0, transformers 5.24.0.
"""
import importlib
import json
import os
import pathlib

os.environ["HF_HUB_OFFLINE"] = "1"
import transformers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

HERE = pathlib.Path(__file__).resolve().parent
SIZES = dict(vocab_size=100, intermediate_size=96, num_hidden_layers=2)
LLAMA = dict(SIZES, model_type="llama", hidden_size=512, num_attention_heads=4)
PHI3 = dict(SIZES, model_type="phi3", hidden_size=384, num_attention_heads=4, pad_token_id=0, bos_token_id=0, eos_token_id=0)
LONG = [round(1 + 0.75 * i + 0.02 * i * i, 4) for i in range(48)]
SHORT = [round(1 + 0.05 * i, 4) for i in range(48)]
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=32768)
CASES = {  # config.json in the old spelling, lengths of rows
    "llama 2": (dict(LLAMA, max_position_embeddings=4096), [4096]),
    "codellama": (dict(LLAMA, max_position_embeddings=16384, rope_theta=1000000.0), [16384]),
    "linear": (dict(LLAMA, max_position_embeddings=8192, rope_scaling=dict(type="linear", factor=4.0)), [100, 8192]),
    "dynamic": (dict(LLAMA, max_position_embeddings=2048, rope_scaling=dict(type="dynamic", factor=2.0)),
                [100, 2048, 2049, 3000, 4096]),
    "dynamic 3.5": (dict(LLAMA, hidden_size=96, max_position_embeddings=4096, rope_theta=500000.0,
                         rope_scaling=dict(rope_type="dynamic", factor=3.5)), [4096, 4097, 14336]),
    "llama 3.1": (dict(LLAMA, max_position_embeddings=131072, rope_theta=500000.0,
                       rope_scaling=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                         original_max_position_embeddings=8192)), [100, 8192, 131072]),
    "llama 3.2": (dict(LLAMA, hidden_size=256, max_position_embeddings=131072, rope_theta=500000.0,
                       rope_scaling=dict(rope_type="llama3", factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                         original_max_position_embeddings=8192)), [100, 8193]),
    "qwen 2.5, yarn": (dict(LLAMA, model_type="qwen2", max_position_embeddings=131072, rope_theta=1000000.0,
                            rope_scaling=YARN), [100, 32768, 131072]),
    "qwen 3, yarn": (dict(LLAMA, model_type="qwen3", head_dim=128, hidden_size=256, max_position_embeddings=131072,
                          rope_theta=1000000.0, rope_scaling=YARN), [40000]),
    "yarn, not truncated": (dict(LLAMA, hidden_size=64, rope_scaling=dict(
        rope_type="yarn", factor=4.0, original_max_position_embeddings=512, truncate=False)), [512]),
    "yarn, betas": (dict(LLAMA, rope_scaling=dict(
        rope_type="yarn", factor=16.0, original_max_position_embeddings=4096, beta_fast=16, beta_slow=2)), [512]),
    "yarn, mscale": (dict(LLAMA, rope_scaling=dict(
        rope_type="yarn", factor=40.0, original_max_position_embeddings=2048, mscale=1.0, mscale_all_dim=0.5)), [512]),
    "yarn, attention_factor": (dict(LLAMA, rope_scaling=dict(
        rope_type="yarn", factor=40.0, original_max_position_embeddings=2048, attention_factor=1.5)), [512]),
    "phi 2": (dict(SIZES, model_type="phi", hidden_size=320, num_attention_heads=4, partial_rotary_factor=0.4), [2048]),
    "phi 3": (dict(PHI3, max_position_embeddings=4096, original_max_position_embeddings=4096), [4096]),
    "phi 3, longrope": (dict(PHI3, max_position_embeddings=131072, original_max_position_embeddings=4096,
                             rope_scaling=dict(type="longrope", long_factor=LONG, short_factor=SHORT)),
                        [100, 4096, 4097, 131072]),
    "phi 4": (dict(PHI3, hidden_size=512, max_position_embeddings=16384, original_max_position_embeddings=16384,
                   rope_theta=250000.0), [16384]),
    "phi 4 mini, longrope": (dict(PHI3, hidden_size=512, partial_rotary_factor=0.75, max_position_embeddings=131072,
                                  original_max_position_embeddings=4096,
                                  rope_scaling=dict(type="longrope", long_factor=LONG, short_factor=[1.0] * 48)),
                             [4096, 4097]),
    "gemma 2": (dict(LLAMA, model_type="gemma2", head_dim=256, max_position_embeddings=8192), [8192]),
    "gemma 3": (dict(LLAMA, model_type="gemma3_text", head_dim=256, rope_theta=1000000.0, rope_local_base_freq=10000.0,
                     rope_scaling=dict(rope_type="linear", factor=8.0)), [8192]),
    "gemma 3, windowed": (dict(LLAMA, model_type="gemma3_text", head_dim=256, rope_theta=1000000.0,
                               rope_local_base_freq=10000.0, rope_scaling=dict(rope_type="linear", factor=8.0)), [8192]),
}


def new_spelling(old, config):
    kept = {key: value for key, value in old.items() if not key.startswith("rope_") and key != "partial_rotary_factor"}
    return dict(kept, rope_parameters=config.to_dict()["rope_parameters"])


def frequencies(config, layer_type, length):
    parameters = config.rope_parameters[layer_type] if layer_type else config.rope_parameters
    if parameters["rope_type"] != "default":
        return ROPE_INIT_FUNCTIONS[parameters["rope_type"]](config, None, seq_len=length,
                                                            **(dict(layer_type=layer_type) if layer_type else {}))
    name = {"gemma3_text": "gemma3"}.get(config.model_type, config.model_type)
    module = importlib.import_module("transformers.models.%s.modeling_%s" % (name, name))
    rotary = next(value for key, value in vars(module).items() if key.endswith("RotaryEmbedding"))
    return rotary.compute_default_rope_parameters(config, **(dict(layer_type=layer_type) if layer_type else {}))


made = []
for name, (old, lengths) in CASES.items():
    config = transformers.AutoConfig.for_model(**json.loads(json.dumps(old)))
    local = name.endswith("windowed")
    layer_type = None
    if old["model_type"] == "gemma3_text":
        layer_type = "sliding_attention" if local else "full_attention"
    values = [frequencies(config, layer_type, length) for length in lengths]
    made.append(dict(name=name, old=old, new=new_spelling(old, config), local=local, factor=float(values[0][1]),
                     lengths=lengths, frequencies=[[float("%.9g" % value) for value in row.tolist()] for row, _ in values]))
with open(HERE / "ropes.json", "w") as file:
    file.write("[\n" + ",\n".join(json.dumps(row, separators=(",", ":")) for row in made) + "\n]\n")
print(len(made), "kinds of rotary positions")

#!/usr/bin/env python3
"""Golden weight files, from Python's gguf, safetensors and torch packages.

    python tests/golden/weights_golden.py            writes tests/golden/weights_*
    python tests/golden/weights_golden.py FOLDER     prints the number of tokens and the mean negative log-likelihood (f32,
                                                     Transformers) of the paragraph in tests/providers/test_smollm2.c

weights_types.gguf            one tensor of every supported type, random blocks, and metadata of every kind
weights_types.safetensors     the same tensors dequantised by the gguf package (f32)
weights_python.safetensors    what Python writes: F32, F16, BF16, I64, a scalar, an empty tensor, metadata
weights_llama.gguf            a whole tiny llama with the tokenizer of tokenizer_smollm, several types
weights_llama.safetensors     its weights under Hugging Face's names, query and key rows put back in order
"""
import json
import os
import pathlib
import re
import sys

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

HERE = pathlib.Path(__file__).resolve().parent
HALVES = {  # byte offsets of f16 scales in a block
    Type.Q4_0: [0], Type.Q4_1: [0, 2], Type.Q5_0: [0], Type.Q5_1: [0, 2], Type.Q8_0: [0], Type.Q4_K: [0, 2],
    Type.Q5_K: [0, 2], Type.Q6_K: [208],
}


def random_blocks(random, kind, shape):
    """Blocks of random bits with sane scales: every bit of the layout matters."""
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = random.integers(0, 256, (int(np.prod(shape)) // elements, size), dtype=np.uint8)
    for offset in HALVES[kind]:
        scale = random.normal(0, 0.01, blocks.shape[0]).astype(np.float16)
        blocks[:, offset:offset + 2] = scale.view(np.uint8).reshape(-1, 2)
    return blocks.reshape(*shape[:-1], -1)


def tensor(random, kind, shape):
    if kind in HALVES:
        return random_blocks(random, kind, shape)
    values = random.normal(0, 1, shape).astype(np.float32)
    if kind == Type.F16:
        return values.astype(np.float16)
    return gguf.quantize(values, kind) if kind == Type.BF16 else values


def types():
    random = np.random.default_rng(1)
    writer = gguf.GGUFWriter(HERE / "weights_types.gguf", "test")
    writer.add_uint8("key.u8", 255)
    writer.add_int8("key.i8", -128)
    writer.add_uint16("key.u16", 65535)
    writer.add_int16("key.i16", -32768)
    writer.add_uint32("key.u32", 4294967295)
    writer.add_int32("key.i32", -2147483648)
    writer.add_uint64("key.u64", 1 << 63)
    writer.add_int64("key.i64", -(1 << 63))
    writer.add_float32("key.f32", 0.5)
    writer.add_float64("key.f64", 1e-300)
    writer.add_bool("key.bool", True)
    writer.add_string("key.string", "naïve")
    writer.add_array("key.strings", ["a", "", "bc"])
    writer.add_array("key.integers", [3, -1, 7])
    expected = {}
    kinds = [Type.F32, Type.F16, Type.BF16] + list(HALVES)
    for kind in kinds:
        shape = (3, 512) if kind.name.endswith("_K") else (2, 3, 64)
        data = tensor(random, kind, shape)
        writer.add_tensor(kind.name, data, raw_dtype=kind)
        expected[kind.name] = gguf.dequantize(data, kind).astype(np.float32).reshape(shape)
    finish(writer)
    save_file(expected, HERE / "weights_types.safetensors")


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def python_file():
    random = torch.Generator().manual_seed(2)
    value = torch.randn(5, 7, generator=random)
    save_torch({"b.f32": value, "a.f16": value.to(torch.float16), "c.bf16": value.to(torch.bfloat16),
                "d.i64": torch.arange(3), "e.scalar": torch.tensor(2.5), "f.empty": torch.zeros(0, 4)},
               HERE / "weights_python.safetensors", metadata={"format": "pt", "note": "naïve"})


def interleave(rows, heads):
    """What llama.cpp stores: halves (i, d / 2 + i) of each head side by side."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def llama():
    random = np.random.default_rng(3)
    hidden, feed_forward, heads, key_value_heads, layers = 32, 64, 2, 1, 2
    tokenizer = json.loads((HERE / "tokenizer_smollm" / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    special = {token["id"] for token in tokenizer["added_tokens"]}
    writer = gguf.GGUFWriter(HERE / "weights_llama.gguf", "llama")
    writer.add_context_length(256)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(feed_forward)
    writer.add_block_count(layers)
    writer.add_head_count(heads)
    writer.add_head_count_kv(key_value_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(100000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(sorted(vocabulary, key=vocabulary.get))
    writer.add_token_types([3 if i in special else 1 for i in range(len(vocabulary))])
    writer.add_token_merges([" ".join(merge) for merge in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    config = json.loads((HERE / "tokenizer_smollm" / "tokenizer_config.json").read_text(encoding="utf-8"))
    writer.add_chat_template(config["chat_template"])
    expected = {}

    def add(name, huggingface, kind, shape, interleaved_heads=0):
        data = tensor(random, kind, shape)
        values = gguf.dequantize(data, kind).astype(np.float32).reshape(shape)
        if interleaved_heads:  # `data` is what the file holds; undo llama.cpp's order for the expectation
            order = interleave(np.arange(shape[0]), interleaved_heads)
            back = np.empty_like(values)
            back[order] = values
            values = back
        writer.add_tensor(name, data, raw_dtype=kind)
        expected[huggingface] = np.ascontiguousarray(values)

    add("token_embd.weight", "model.embed_tokens.weight", Type.Q8_0, (len(vocabulary), hidden))
    head_size = hidden // heads
    for i in range(layers):
        gguf_layer, layer = f"blk.{i}.", f"model.layers.{i}."
        add(gguf_layer + "attn_norm.weight", layer + "input_layernorm.weight", Type.F32, (hidden,))
        add(gguf_layer + "attn_q.weight", layer + "self_attn.q_proj.weight", Type.Q4_1, (hidden, hidden), heads)
        add(gguf_layer + "attn_k.weight", layer + "self_attn.k_proj.weight", Type.Q5_0,
            (key_value_heads * head_size, hidden), key_value_heads)
        add(gguf_layer + "attn_v.weight", layer + "self_attn.v_proj.weight", Type.F16, (key_value_heads * head_size, hidden))
        add(gguf_layer + "attn_output.weight", layer + "self_attn.o_proj.weight", Type.BF16, (hidden, hidden))
        add(gguf_layer + "ffn_norm.weight", layer + "post_attention_layernorm.weight", Type.F32, (hidden,))
        add(gguf_layer + "ffn_gate.weight", layer + "mlp.gate_proj.weight", Type.Q4_0, (feed_forward, hidden))
        add(gguf_layer + "ffn_up.weight", layer + "mlp.up_proj.weight", Type.Q5_1, (feed_forward, hidden))
        add(gguf_layer + "ffn_down.weight", layer + "mlp.down_proj.weight", Type.Q8_0, (hidden, feed_forward))
    add("output_norm.weight", "model.norm.weight", Type.F32, (hidden,))
    finish(writer)
    save_file(expected, HERE / "weights_llama.safetensors")


def likelihood(folder):
    os.environ["HF_HUB_OFFLINE"] = "1"
    from transformers import AutoModelForCausalLM, AutoTokenizer
    source = (HERE.parent / "providers" / "test_smollm2.c").read_text(encoding="utf-8")
    declaration = re.search(r'paragraph\[\] =(.*?);\n', source, re.S).group(1)
    paragraph = "".join(re.findall(r'"([^"]*)"', declaration))
    ids = AutoTokenizer.from_pretrained(folder)(paragraph, return_tensors="pt")["input_ids"]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        print(ids.shape[1], "tokens,", "%.6f" % model(ids, labels=ids).loss.item())
        print("in bf16: %.6f" % model.to(torch.bfloat16)(ids, labels=ids).loss.item())


if __name__ == "__main__":
    if len(sys.argv) == 2:
        likelihood(sys.argv[1])
        sys.exit()
    types()
    python_file()
    llama()

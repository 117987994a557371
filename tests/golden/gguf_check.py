#!/usr/bin/env python3
"""Every family as GGUF: the tiny random models with their adapters merged, in llama.cpp, Transformers and our own reader.

    python tests/golden/gguf_check.py TRAINER [NAME...]

Each file must compute in llama.cpp what Transformers computes with the merged folder, hold the tensors that the gguf
package knows for its architecture, and come back through `modelforge-trainer convert` as a folder with which
Transformers computes the same. Rows are longer than the models' windows. Prints one line a model.
"""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
import gguf
import numpy
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

import llama_cpp

HERE = pathlib.Path(__file__).resolve().parent
MODELS = HERE / "models"
POSITIONS = 256  # of llama.cpp's context, which takes longrope's other factors for more than the original ones
NO = object()  # the field is left out
PLAIN = dict(rope_type="default", rope_theta=10000.0)
# Of logits, relative to their size: f16 weights and inputs in llama.cpp, f16 weights alone where our reader reads them.
IN_LLAMA_CPP, READ_BACK = 3e-3, 2e-3
# (name, golden model, changed fields of its config.json: llama.cpp has fixed ideas of some)
CASES = [
    ("llama", "tied-gqa", {}),
    ("llama, llama3 RoPE", "untied-llama3-rope", {}),
    ("llama, biases, linear RoPE", "bias-linear-rope", {}),
    ("llama, yarn", "tied-gqa", dict(rope_parameters=dict(PLAIN, rope_type="yarn", factor=4.0,
                                                          original_max_position_embeddings=32))),
    ("llama, yarn, attention_factor", "tied-gqa",
     dict(rope_parameters=dict(PLAIN, rope_type="yarn", factor=4.0, original_max_position_embeddings=32,
                               attention_factor=1.4))),
    ("llama, longrope", "tied-gqa",
     dict(rope_parameters=dict(PLAIN, rope_type="longrope", short_factor=[1.0, 1.1, 1.3, 1.7, 2.0, 2.5, 3.0, 3.5],
                               long_factor=[1.0, 1.2, 1.6, 2.4, 3.2, 4.0, 5.0, 6.0],
                               original_max_position_embeddings=POSITIONS),
          max_position_embeddings=1024)),
    ("mistral", "mistral", dict(sliding_window=None)),
    ("qwen2", "qwen2", dict(use_sliding_window=False, layer_types=NO)),
    ("qwen3", "qwen3", {}),
    ("gemma", "gemma", {}),
    ("gemma2", "gemma2", dict(query_pre_attn_scalar=8)),
    ("gemma3", "gemma3", dict(query_pre_attn_scalar=8)),
    ("gemma3, text of a model with images", "gemma3-vision", {}),
    ("phi2", "phi2", {}),
    ("phi3", "phi3", dict(sliding_window=None)),
    ("phi3, longrope", "phi3-longrope", dict(original_max_position_embeddings=POSITIONS, max_position_embeddings=1024,
                                             rope_parameters=dict(PLAIN, rope_type="longrope",
                                                                  partial_rotary_factor=0.75,
                                                                  short_factor=[1.0, 1.25, 2.5],
                                                                  long_factor=[1.5, 4.0, 16.0]))),
]


def check(condition, *words):
    if not condition:
        sys.exit("FAILED: " + " ".join(str(word) for word in words))


def run(*command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120)
    check(done.returncode == 0, *command, done.stdout[-800:], done.stderr[-800:])


def prepare(source, changes, folder):
    """A copy of the golden model with another config.json."""
    shutil.copytree(MODELS / source, folder)
    path = folder / "config.json"
    config = dict(json.loads(path.read_text()), **changes)
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not NO}))


def rows():
    return [row["tokens"] for row in json.loads((MODELS / "tied-gqa" / "golden.json").read_text())["rows"]]


def network_logits(folder):
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        return [network(torch.tensor([row])).logits[0].double().numpy() for row in rows()]


def difference(ours, theirs):
    """The largest over rows of |difference| / |theirs|."""
    return max(numpy.linalg.norm(a - b) / numpy.linalg.norm(b) for a, b in zip(ours, theirs))


def check_names(path):
    """Every tensor has a name that the gguf package knows for this architecture, and the shape of its layer."""
    reader = gguf.GGUFReader(path)
    architecture = reader.fields["general.architecture"].contents()
    number = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    known = {gguf.TENSOR_NAMES[tensor] for tensor in gguf.MODEL_TENSORS[number]}
    known |= {"rope_factors_long", "rope_factors_short"}  # which llama.cpp reads for llama, too
    for tensor in reader.tensors:
        stem = tensor.name.rsplit(".", 1)[0]
        layer = stem.split(".")[1] if stem.startswith("blk.") else "0"
        check(any(name.format(bid=layer) == stem for name in known), tensor.name, "is no tensor of", architecture)
    return architecture


def tokenizer_of(folder):
    """As tokenizer.json says, which Transformers' classes of some families change."""
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


TEXTS = ("the thing and another one", "  two  blanks, 12345 digits\n\nnew line\t", "Grüße, κόσμε 🙂 it's HTTPServer I'LL",
         " ", "", "a/b\\c\r\n  x = [1, 2];", "e\u0301 and \u00e9", "\u2581 marks\u00a0here", "ÀÉ straße")


def check_tokens(path, tokenizer, leave_out=()):
    file = llama_cpp.File(path, POSITIONS)
    for text in TEXTS:
        if text in leave_out:
            continue
        wanted = tokenizer.encode(text).ids
        check(file.tokens(text) == wanted, "other tokens of", repr(text), file.tokens(text), wanted)
    return file


def words(pattern):
    return dict(type="Sequence", pretokenizers=[
        dict(type="Split", pattern=dict(Regex=pattern), behavior="Isolated", invert=False),
        dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=False)])


def template(first, number):
    return dict(type="TemplateProcessing", single=[dict(SpecialToken=dict(id=first, type_id=0)), dict(Sequence=dict(id="A", type_id=0))],
                pair=[dict(Sequence=dict(id="A", type_id=0)), dict(Sequence=dict(id="B", type_id=0))],
                special_tokens={first: dict(id=first, ids=[number], tokens=[first])})


def all_merges(made):
    """SentencePiece's merges: every way to make a piece, pieces in the order of their first merge."""
    vocabulary, order = made["model"]["vocab"], {}
    for left, right in made["model"]["merges"]:
        order.setdefault(left + right, None)
    return [[piece[:at], piece[at:]] for piece in order for at in range(1, len(piece))
            if piece[:at] in vocabulary and piece[at:] in vocabulary]


REST = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
CL100K = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*" + REST
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
CASED = (r"[^\r\n\p{L}\p{N}]?" + UPPER + "*" + LOWER + r"+%s|[^\r\n\p{L}\p{N}]?" + UPPER + "+" + LOWER + r"*%s|\p{N}%s|"
         r" ?[^\s\p{L}\p{N}]+[\r\n/]*" + REST)
SHORT = "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
BYTES = "models/tied-gqa"
# (tokenizer.ggml.pre, folder of the tokenizer, changes, texts for which llama.cpp has other tokens whoever wrote the file)
TOKENIZERS = [
    ("gpt-2", BYTES, {}, ()),
    ("smollm", "tokenizer_smollm", {}, ()),
    ("qwen2", BYTES, dict(pre_tokenizer=words(CL100K % ""), normalizer=dict(type="NFC")), ("e\u0301 and \u00e9",)),
    ("llama-bpe", BYTES, dict(pre_tokenizer=words(CL100K % "{1,3}"), ignore_merges=True,
                              post_processor=dict(type="Sequence", processors=[
                                  dict(type="ByteLevel", add_prefix_space=True, trim_offsets=False, use_regex=True),
                                  template("<|im_start|>", 1)])), ()),
    ("dbrx", BYTES, dict(pre_tokenizer=words(CL100K % "{1,3}")), ()),
    ("tekken", BYTES, dict(pre_tokenizer=words(CASED % ("", "", "")), ignore_merges=True), ()),
    ("gpt-4o", BYTES, dict(pre_tokenizer=words(CASED % (SHORT, SHORT, "{1,3}"))), ()),
    # SentencePiece: Llama 2, Mistral and Phi-3; Gemma
    ("default", "tokenizer_sentencepiece", dict(all_merges=True), ()),
    ("default", "tokenizer_sentencepiece",
     dict(all_merges=True, normalizer=dict(type="Replace", pattern=dict(String=" "), content="\u2581"),
          pre_tokenizer=dict(type="Split", pattern=dict(String=" "), behavior="MergedWithPrevious", invert=False)), ()),
]


def widen(folder, rows):
    """The vocabulary of a model with so many rows."""
    config = json.loads((folder / "config.json").read_text())
    weights = load_file(folder / "model.safetensors")
    more = rows - config["vocab_size"]
    weights["model.embed_tokens.weight"] = torch.nn.functional.pad(weights["model.embed_tokens.weight"], (0, 0, 0, more))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(dict(config, vocab_size=rows)))


def check_tokenizer(trainer, kind, source, changes, leave_out):
    """The tokens of one kind of tokenizer in llama.cpp, and of what our reader makes of the file."""
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        prepare("tied-gqa", {}, scratch / "base")
        made = json.loads((HERE / source / "tokenizer.json").read_text())
        shutil.copy(HERE / source / "tokenizer_config.json", scratch / "base")
        for part, value in changes.items():
            if part == "all_merges":
                made["model"]["merges"] = all_merges(made)
            else:
                (made["model"] if part == "ignore_merges" else made)[part] = value
        (scratch / "base" / "tokenizer.json").write_text(json.dumps(made))
        widen(scratch / "base", max(300, len(made["model"]["vocab"])))
        run(trainer, "merge", "--model", scratch / "base", "--adapter", scratch / "base" / "adapter", "--output",
            scratch / "merged", "--gguf", "f16")
        path = scratch / "merged" / "model.gguf"
        check(gguf.GGUFReader(path).fields["tokenizer.ggml.pre"].contents() == kind, "another name than", kind)
        tokenizer = tokenizer_of(scratch / "base")
        check_tokens(path, tokenizer, leave_out)
        run(trainer, "convert", path, scratch / "back", "--dtype", "f32")
        back = tokenizer_of(scratch / "back")
        for text in TEXTS:
            check(back.encode(text).ids == tokenizer.encode(text).ids, kind, "comes back with other tokens of", repr(text))
    print("tokenizer %-10s of %-24s %d texts: the same tokens in llama.cpp and read back" %
          (kind, pathlib.Path(source).name, len(TEXTS) - len(leave_out)), flush=True)


def fuse(path, fused):
    """The same file with queries, keys and values in one tensor, as older files of Phi-2 have them."""
    reader = gguf.GGUFReader(path)
    writer = gguf.GGUFWriter(fused, reader.fields["general.architecture"].contents())
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        kind, of = field.types[0], field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, sub_type=of)
    held = {tensor.name: tensor for tensor in reader.tensors}
    for name, tensor in held.items():
        if ".attn_k." in name or ".attn_v." in name:
            continue
        data = tensor.data
        if ".attn_q." in name:
            data = numpy.concatenate([held[name.replace("attn_q", part)].data for part in ("attn_q", "attn_k", "attn_v")])
            name = name.replace("attn_q", "attn_qkv")
        writer.add_tensor(name, data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def check_fused(trainer, scratch):
    fuse(scratch / "merged" / "model.gguf", scratch / "fused.gguf")
    llama_cpp.File(scratch / "fused.gguf", POSITIONS)
    run(trainer, "convert", scratch / "fused.gguf", scratch / "split", "--dtype", "f32")
    whole, split = (load_file(scratch / folder / "model.safetensors") for folder in ("back", "split"))
    check(whole.keys() == split.keys() and all(torch.equal(whole[name], split[name]) for name in whole),
          "queries, keys and values of one tensor are split into others")


def main():
    trainer, names = sys.argv[1], sys.argv[2:]
    for case in TOKENIZERS:
        if not names or case[0] in names:
            check_tokenizer(trainer, *case)
    for name, source, changes in CASES:
        if names and name not in names:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            scratch = pathlib.Path(scratch)
            prepare(source, changes, scratch / "base")
            run(trainer, "merge", "--model", scratch / "base", "--adapter", scratch / "base" / "adapter", "--output",
                scratch / "merged", "--dtype", "f32", "--gguf", "f16")
            path = scratch / "merged" / "model.gguf"
            architecture = check_names(path)
            wanted = network_logits(scratch / "merged")
            file = check_tokens(path, tokenizer_of(scratch / "merged"))
            inside = difference([file.logits(row) for row in rows()], wanted)
            run(trainer, "convert", path, scratch / "back", "--dtype", "f32")
            back = difference(network_logits(scratch / "back"), wanted)
            untrained = difference(network_logits(scratch / "base"), wanted)
            if source == "phi2":
                check_fused(trainer, scratch)
        print("%-30s %-8s llama.cpp %.2g (may be %g), read back %.2g (may be %g); without its adapter %.2g" %
              (name, architecture, inside, IN_LLAMA_CPP, back, READ_BACK, untrained), flush=True)
        check(inside <= IN_LLAMA_CPP and back <= READ_BACK, name, "is too far away")
        check(untrained > 10 * IN_LLAMA_CPP, name, "compares nothing")


if __name__ == "__main__":
    main()

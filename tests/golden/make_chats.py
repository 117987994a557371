#!/usr/bin/env python3
"""Golden chats of the families' own templates, from Transformers: tests/golden/chats/golden.json.

    python tests/golden/make_chats.py

The templates in tests/golden/chats/ are those of the released models, as llama.cpp keeps them in models/templates (MIT).
For each: the rendering of every chat with and without the generation prompt, or the template's refusal; and for chats that
end with an answer the token ids and labels of training on completions, or that the row must be refused, because what stands
before an answer is rendered differently once the answer is there. Ids are those of one small tokenizer that knows all
families' special tokens (real ones are too large to be kept here). Labels come from character offsets.
"""
import json
import os
import pathlib

os.environ["HF_HUB_OFFLINE"] = "1"
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

from tokenizer_golden import CHATS, FixedClock

HERE = pathlib.Path(__file__).resolve().parent / "chats"
FAMILIES = {  # template: begin and end of a text
    "llama-3.1": ("<|begin_of_text|>", "<|eot_id|>"),
    "llama-3.2": ("<|begin_of_text|>", "<|eot_id|>"),
    "mistral-nemo": ("<s>", "</s>"),
    "qwen-2.5": ("<|endoftext|>", "<|im_end|>"),
    "qwen-3": ("<|endoftext|>", "<|im_end|>"),
    "gemma-2": ("<bos>", "<eos>"),
    "phi-3.5": ("<s>", "<|endoftext|>"),
}
SPECIAL = ["<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<s>", "</s>", "[INST]", "[/INST]",
           "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>", "<|user|>",
           "<|assistant|>", "<|system|>", "<|end|>"]
MORE_CHATS = [
    [{"role": "system", "content": "You are terse.\nAnswer in one word."}, {"role": "user", "content": "Sky?"},
     {"role": "assistant", "content": "Blue"}, {"role": "user", "content": "Grass?"},
     {"role": "assistant", "content": "Green\n\nmostly"}],
    [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"},
     {"role": "user", "content": "Say <b>&amp;</b> 'quoted' \"twice\""}, {"role": "assistant", "content": "<think>\nno\n</think>\n\nYes."}],
]


def tokenizer_with_all():
    tokenizer = Tokenizer.from_file(str(HERE.parent / "tokenizer_smollm" / "tokenizer.json"))
    tokenizer.add_special_tokens(SPECIAL)
    (HERE / "tokenizer.json").write_text(json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False,
                                                    separators=(",", ":")), encoding="utf-8")


def spans(tokenizer, messages):
    """Answers as (first, end) characters of the whole chat; None where they cannot be told: something before an answer, or
    the answer, is rendered differently in the whole. What a template puts behind the last message does not count."""
    whole, found = tokenizer.apply_chat_template(messages, tokenize=False), []
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = tokenizer.apply_chat_template(messages[:index], tokenize=False, add_generation_prompt=True)
        after = tokenizer.apply_chat_template(messages[: index + 1], tokenize=False)
        if not whole.startswith(after):
            shared = os.path.commonprefix([whole, after])
            after = shared if whole.endswith(after[len(shared):]) else None
        if after is None or not whole.startswith(before):
            return whole, None
        found.append((len(before), len(after)))
    return whole, found


def encoded(tokenizer, messages):
    whole, found = spans(tokenizer, messages)
    if found is None:
        return dict(broken=True)
    made = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
    return dict(tokens=made["input_ids"],
                labels=[token if any(first < offset[1] <= end for first, end in found) else -100
                        for token, offset in zip(made["input_ids"], made["offset_mapping"])])


def rendered(tokenizer, messages, prompt):
    entry = dict(messages=messages, add_generation_prompt=prompt)
    try:
        entry["text"] = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
    except Exception as error:
        entry["error"] = str(error)
    return entry


def main():
    chat_template_utils.datetime = FixedClock
    tokenizer_with_all()
    golden = {}
    for name, (bos, eos) in FAMILIES.items():
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(HERE / "tokenizer.json"), bos_token=bos, eos_token=eos)
        tokenizer.chat_template = (HERE / (name + ".jinja")).read_text(encoding="utf-8")
        chats = [rendered(tokenizer, messages, prompt) for messages in CHATS + MORE_CHATS for prompt in (False, True)]
        rows = []
        for chat in chats:
            messages = chat["messages"]
            if chat["add_generation_prompt"] or "error" in chat or messages[-1]["role"] != "assistant":
                continue
            rows.append(dict(messages=messages, **encoded(tokenizer, messages)))
        golden[name] = dict(bos=bos, eos=eos, chats=chats, rows=rows)
        print(name, len(chats), "chats,", sum("error" in chat for chat in chats), "refused;", len(rows), "rows,",
              sum("broken" in row for row in rows), "broken")
    (HERE / "golden.json").write_text(json.dumps(golden, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Golden token ids and labels of rows, from Transformers' tokenizer, template and offsets.

    python tests/golden/make_templates.py         writes tests/golden/templates.json

Labels come from character offsets here and from token prefixes in the trainer: two ways to the same answer.
"""
import json
import os
import pathlib

os.environ["HF_HUB_OFFLINE"] = "1"
from transformers import AutoTokenizer

HERE = pathlib.Path(__file__).resolve().parent
ROWS = [
    {"input": "What is the capital of France?", "output": "Paris"},
    {"prompt": "Say it in Greek:\n good day", "completion": "καλημέρα, κόσμε"},
    {"instruction": "Count", "input": "to three", "output": " one two three"},
    {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"},
                  {"role": "assistant", "content": "Hello!"}, {"role": "user", "content": "And now?"},
                  {"role": "assistant", "content": "Nothing\n"}]},
    {"text": "The rest is silence."},
    {"input": "Emoji", "output": "🙂<|im_end|>"},
    {"input": "Nothing", "output": ""},
]
ROLES = {"system": "SYSTEM:", "user": "USER:", "assistant": "ASSISTANT:"}


def messages_of(row):
    if "messages" in row:
        return row["messages"]
    if "instruction" in row:
        user = row["instruction"] + ("\n" + row["input"] if row.get("input") else "")
        return [dict(role="user", content=user), dict(role="assistant", content=row["output"])]
    keys = ("prompt", "completion") if "prompt" in row else ("input", "output")
    return [dict(role="user", content=row[keys[0]]), dict(role="assistant", content=row[keys[1]])]


def lay_out(row, tokenizer, chat):
    """The text and its completions as (first, end) characters."""
    if "text" in row:
        return row["text"], [(0, len(row["text"]))]
    messages, spans, text = messages_of(row), [], ""
    for index, message in enumerate(messages):
        if chat:
            if message["role"] == "assistant":
                spans.append((len(tokenizer.apply_chat_template(messages[:index], tokenize=False,
                                                                add_generation_prompt=True)),
                              len(tokenizer.apply_chat_template(messages[:index + 1], tokenize=False))))
            continue
        text += ("\n" if index else "") + ROLES[message["role"]]
        first = len(text)
        text += " " + message["content"]
        if message["role"] == "assistant":
            spans.append((first, len(text)))
    return (tokenizer.apply_chat_template(messages, tokenize=False) if chat else text), spans


def encode(row, tokenizer, chat):
    """Token ids and labels of a row."""
    text, spans = lay_out(row, tokenizer, chat)
    templated = chat and "text" not in row
    made = tokenizer(text, add_special_tokens=not templated, return_offsets_mapping=True)
    tokens = made["input_ids"]
    labels = [token if any(first < offset[1] <= end for first, end in spans) else -100
              for token, offset in zip(tokens, made["offset_mapping"])]
    if templated:
        return tokens, labels
    if tokens[-1] == tokenizer.eos_token_id:
        labels[-1] = tokens[-1]
        return tokens, labels
    return tokens + [tokenizer.eos_token_id], labels + [tokenizer.eos_token_id]


def main():
    tokenizer = AutoTokenizer.from_pretrained(HERE / "models" / "tied-gqa")
    golden = []
    for chat in (False, True):
        for row in ROWS:
            tokens, labels = encode(row, tokenizer, chat)
            golden.append(dict(chat=chat, row=row, tokens=tokens, labels=labels))
    with open(HERE / "templates.json", "w") as file:
        json.dump(golden, file, separators=(",", ":"))
        file.write("\n")


if __name__ == "__main__":
    main()

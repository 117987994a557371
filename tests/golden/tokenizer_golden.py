#!/usr/bin/env python3
"""Golden token ids, decoded texts and rendered chats, from Python's tokenizers and Transformers.

    python tests/golden/tokenizer_golden.py            writes tests/golden/tokenizer_<family>/
    python tests/golden/tokenizer_golden.py FOLDER     writes tests/golden/tokenizer_smollm2.json for the model folder

Each family is a small tokenizer trained here on the texts below, with the parts (normaliser, pre-tokeniser, post-processor,
decoder) of a real one, and a chat template. golden.json holds per text the ids without and with special tokens and the
decoded text, and per chat the rendering or the error.
"""
import datetime
import json
import os
import pathlib
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors,
                        trainers)
from transformers import AutoTokenizer
from transformers.utils import chat_template_utils

HERE = pathlib.Path(__file__).resolve().parent
CREATED_AT = datetime.datetime(2025, 3, 9, 23, 59, 58)  # what strftime_now prints, UTC

CORPUS = [
    "The quick brown fox jumps over the lazy dog.", "A queue of requests waits for a worker to claim them.",
    "Training a model takes time, memory and patience; measuring it takes care.", "It isn't what we've said, they'll see.",
    "In 2024 the team trained 128 adapters of rank 16 in 3.5 hours.", "naïve café, façade, Ångström, Straße, œuvre",
    "Привет, мир! Как дела?", "日本語のテキストと中文文本。", "مرحبا بالعالم", "def add(a, b):\n    return a + b\n",
    "for (int i = 0; i < 10; i++) { sum += x[i] * y[i]; }", "emails like someone@example.org and https://example.org/a?b=c#d",
    "the history of the city began with the construction of a small fort on the eastern bank of the river",
    "    indented\n\n\ttabbed\r\nwindows line", "mixed CASE Words and snake_case_names and CamelCaseNames",
] * 4

TEXTS = [
    "", " ", "Hello world", " Hello  world ", "The quick brown fox isn't here.", "they'LL we've I'm",
    "1234567890 3.14159 1,000,000", "naïve café Ångström", "e\u0301 combining \u00e9 composed", "Привет, мир!",
    "日本語のテキスト", "مرحبا بالعالم", "😀👍🏽 👩‍👩‍👧 flags 🇩🇪", "\n", "\n\n  \n", "\t\ttabs\tand spaces   ",
    "def add(a, b):\n    return a + b\n", "trailing space ", "a\u00a0non-breaking\u2009thin\u200bzero", "\ufeffbyte order mark",
    "<|im_start|>user\nhi<|im_end|>\n", "<s>already begun</s>", "[CLS] a [MASK] b [SEP]", "<|begin_of_text|>x<|eot_id|>",
    "ﬁ ligature ① circled ＡＢＣ fullwidth", "\u0000\u0001\u001f\u007f control", "x" * 70, "aaaaaaaa bbbbbbbb",
    "https://example.org/a?b=c&d=e#f", "unknown ↯ ⌘ ꙮ 𝔘𝔫𝔦 glyphs", "word\u2581lower block", "don't\u2019s \u201cquoted\u201d",
    "line one\r\nline two\rline three", "<unk> <pad>", "##piece ##ing",
]

CHATS = [
    [{"role": "user", "content": "Hi"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is 2 + 2?"},
     {"role": "assistant", "content": "4."}],
    [{"role": "user", "content": "  spaces \n"}, {"role": "assistant", "content": "Ünïcödé 日本 <|im_end|>"},
     {"role": "user", "content": "more"}, {"role": "assistant", "content": "\ttrimmed?  "}],
    [{"role": "assistant", "content": "I begin."}, {"role": "user", "content": "Not allowed everywhere."}],
    [{"role": "user", "content": "two"}, {"role": "user", "content": "in a row"}],
    [{"role": "tool", "content": "{\"a\": [1, 2.5, null, true], \"é\": \"<b>&\"}"}],
]

CHATML = ("{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
          "{{ '<|im_start|>system\nYou are a helpful assistant<|im_end|>\n' }}{% endif %}"
          "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
          "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")

LLAMA3 = """{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}

{#- The system message. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\\n" }}
{%- endif %}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

MISTRAL = ("{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content'] %}"
           "{%- set loop_messages = messages[1:] %}{%- else %}{%- set loop_messages = messages %}{%- endif %}"
           "{{- bos_token }}{%- for message in loop_messages %}"
           "{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
           "{{- raise_exception('After the optional system message, conversation roles must alternate user/assistant/user/assistant/...') }}"
           "{%- endif %}{%- if message['role'] == 'user' %}{%- if loop.first and system_message is defined %}"
           "{{- ' [INST] ' + system_message + '\\n\\n' + message['content'] + ' [/INST]' }}{%- else %}"
           "{{- ' [INST] ' + message['content'] + ' [/INST]' }}{%- endif %}"
           "{%- elif message['role'] == 'assistant' %}{{- ' ' + message['content'] + eos_token}}"
           "{%- else %}{{- raise_exception('Only user and assistant roles are supported, with the exception of an initial optional system message!') }}"
           "{%- endif %}{%- endfor %}")

# The corners of Jinja that real templates use.
CORNERS = """{%- set ns = namespace(found=false, last=none) -%}
{%- for message in messages if message.content is string and message.content.strip() %}
    {%- set ns.found = true %}{% set ns.last = message %}
    {{- loop.index }}:{{ message.role.upper()[:3] }}|{{ message['content'].split(' ')[0] }}|{{ message.content | length }}|
    {%- if message.content.startswith('<') or not message.get('name') %}{{ message.content.replace('a', 'A') }}{% endif %}
    {%- if not loop.last %}{{ ', ' }}{% endif %}
{%- else %}none{%- endfor %}
[{{ ns.found }}/{{ ns.last.role }}/{{ undefined_name }}/{{ none }}/{{ 7 // 2 }}/{{ 7 / 2 }}/{{ [1, 'b', none, true] }}/{{ {'k': 1.0} }}]
{{ messages | tojson }}
{{ messages[-1] | tojson(indent=2) }}
{{ messages | map(attribute='role') | join('+') }} {{ messages | selectattr('role', 'equalto', 'user') | list | length }}
{% generation %}
  kept
{%- endgeneration %}
{% macro wrap(x) -%}<{{ x | trim }}>{%- endmacro %}{{ wrap(' y ') }} {{ 'a' ~ 1 ~ 2.5 }} {{ '%s' | replace('%', '#') }} {{ "q" in messages[0].content }} {{ messages[0].content.rstrip() }}{{ strftime_now('%Y-%m-%d %H:%M:%S %j %A') }}
"""


def bytelevel():
    tokenizer = Tokenizer(models.BPE())
    pattern = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
               r"\s+(?!\S)|\s+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"]
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=480, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A <|begin_of_text|> $B:1",
                                      special_tokens=[("<|begin_of_text|>", 0)])])
    return tokenizer, dict(bos_token="<|begin_of_text|>", eos_token="<|eot_id|>", chat_template=LLAMA3)


def smollm():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    return tokenizer, dict(bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|im_end|>", chat_template=CHATML)


def sentencepiece():
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(),
                                           decoders.Strip(" ", 1, 0)])
    special = ["<unk>", "<s>", "</s>"] + ["<0x%02X>" % i for i in range(256)]
    ascii_corpus = [text for text in CORPUS if text.isascii()]  # the rest needs the byte fallback
    tokenizer.train_from_iterator(ascii_corpus, trainers.BpeTrainer(
        vocab_size=560, special_tokens=special, show_progress=False, max_token_length=12))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)])
    state = json.loads(tokenizer.to_str())  # byte tokens are ordinary entries of the vocabulary
    state["added_tokens"] = [token for token in state["added_tokens"] if not token["content"].startswith("<0x")]
    return Tokenizer.from_str(json.dumps(state)), dict(
        bos_token="<s>", eos_token="</s>", unk_token="<unk>", add_bos_token=True, add_eos_token=True,
        chat_template=[{"name": "tool_use", "template": "{{ raise_exception('not this one') }}"},
                       {"name": "default", "template": MISTRAL}])


def unigram():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.train_from_iterator(CORPUS, trainers.UnigramTrainer(
        vocab_size=300, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False))
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>",
                                                             special_tokens=[("</s>", 1)])
    return tokenizer, dict(eos_token={"__type": "AddedToken", "content": "</s>", "lstrip": False, "normalized": False,
                                      "rstrip": False, "single_word": False, "special": True},
                           unk_token="<unk>", pad_token="<pad>", chat_template=CORNERS)


def wordpiece():
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=420, special_tokens=special,
                                                                    show_progress=False))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    tokenizer.enable_truncation(max_length=8)  # a tokenizer.json may carry it; it must not be used
    tokenizer.enable_padding(length=8, pad_token="[PAD]")
    return tokenizer, dict(unk_token="[UNK]", sep_token="[SEP]", pad_token="[PAD]", cls_token="[CLS]", mask_token="[MASK]")


def golden(tokenizer, texts):
    result = []
    for text in texts:
        plain = tokenizer(text, add_special_tokens=False)["input_ids"]
        result.append(dict(text=text, ids=plain, special=tokenizer(text)["input_ids"],
                           decoded=tokenizer.decode(plain, skip_special_tokens=False, clean_up_tokenization_spaces=False),
                           skipped=tokenizer.decode(plain, skip_special_tokens=True, clean_up_tokenization_spaces=False)))
    return result


class FixedClock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return CREATED_AT


def chats(tokenizer):
    chat_template_utils.datetime = FixedClock
    result = []
    for messages in CHATS:
        for prompt in (False, True):
            entry = dict(messages=messages, add_generation_prompt=prompt)
            try:
                entry["text"] = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
            except Exception as error:
                entry["error"] = str(error)
            result.append(entry)
    return result


def write(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


def main():
    if len(sys.argv) == 2:
        tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
        write(HERE / "tokenizer_smollm2.json", dict(texts=golden(tokenizer, TEXTS + CORPUS[:15]), chats=chats(tokenizer)))
        return
    for build in (bytelevel, smollm, sentencepiece, unigram, wordpiece):
        tokenizer, config = build()
        folder = HERE / ("tokenizer_" + build.__name__)
        folder.mkdir(exist_ok=True)
        (folder / "tokenizer.json").write_text(json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False,
                                                          separators=(",", ":")), encoding="utf-8")
        config = dict(tokenizer_class="PreTrainedTokenizerFast", clean_up_tokenization_spaces=False, **config)
        write(folder / "tokenizer_config.json", config)
        loaded = AutoTokenizer.from_pretrained(folder)
        value = dict(vocabulary=len(loaded), bos=loaded.bos_token_id, eos=loaded.eos_token_id, texts=golden(loaded, TEXTS))
        if loaded.chat_template:
            value["chats"] = chats(loaded)
        write(folder / "golden.json", value)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Mean negative log-likelihood of a text by Transformers, in f32: what `modelforge-trainer score` must give.

    python tests/golden/score_text.py MODEL_FOLDER TEXT_FILE [ADAPTER_FOLDER]
"""
import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
if len(sys.argv) > 3:
    from peft import PeftModel

    model = PeftModel.from_pretrained(model, sys.argv[3])
model.eval()
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
ids = tokenizer(open(sys.argv[2], encoding="utf-8").read().rstrip("\n"), return_tensors="pt").input_ids
with torch.no_grad():
    loss = model(ids, labels=ids).loss.item()
print('{"tokens":%d,"loss":%.9g}' % (ids.shape[1], loss))

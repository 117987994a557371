"""The step of cpu_step.c in PyTorch and PEFT: the same model, batch, labels, adapters, optimiser and clipping.

    OMP_NUM_THREADS=2 python cpu_step.py MODEL_FOLDER f32|bf16 SEQUENCES LENGTH STEPS RANK DROPOUT
"""
import os
import sys
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

folder, dtype, sequences, length, steps, rank, dropout = sys.argv[1:8]
sequences, length, steps, rank, dropout = int(sequences), int(length), int(steps), int(rank), float(dropout)
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
torch.manual_seed(0)

model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16 if dtype == "bf16" else torch.float32)
targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
model = get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=dropout, target_modules=targets))
model.train()
trained = [p for p in model.parameters() if p.requires_grad]
optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.0)
tokens = torch.randint(0, 40000, (sequences, length))

best = float("inf")
for step in range(steps + 1):  # the first warms up
    wall, processor = time.monotonic(), time.process_time()
    loss = model(input_ids=tokens, labels=tokens).loss
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(trained, 0.3)
    optimizer.step()
    optimizer.zero_grad()
    took, used = time.monotonic() - wall, time.process_time() - processor
    if step:
        best = min(best, took)
    print(f"step {step}: loss {loss.item():.5f}, gradient norm {norm.item():.5f}, {1e3 * took:.1f} ms, "
          f"{sequences * length / took:.0f} tokens/s, processor time {1e3 * used:.1f} ms", flush=True)
print(f"best {sequences * length / best:.0f} tokens/s")

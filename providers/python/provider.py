"""The real Python trainers as providers of modelforge: Transformers + PEFT, or Unsloth, by the trainer protocol.

    provider.py capabilities        what it can do here, as one JSON object
    provider.py run REQUEST.json    JSON lines on descriptor 3, commands on descriptor 4

MODELFORGE_PROVIDER names which: transformers-python or unsloth-python. See README.md beside this file."""
import dataclasses, hashlib, importlib.metadata, importlib.util, json, math, os, sys, threading, time

NAME = os.environ.get("MODELFORGE_PROVIDER", "transformers-python")
UNSLOTH = NAME == "unsloth-python"
PACKAGES = ["torch", "transformers", "peft", "accelerate"] + (["unsloth"] if UNSLOTH else [])
TITLES = {"unsloth": "Unsloth", "torch": "PyTorch", "transformers": "Transformers", "peft": "PEFT", "accelerate": "Accelerate"}
# What this provider obeys; every other field that is not at its default it refuses by name. Rows, templates and lengths
# are settled before it starts: it is given tokens and labels.
OBEYED = set("""task model_name revision provider strategy dataset validation_dataset request_id tenant submitted_by batch_id
priority run_at deadline max_attempts preemptible labels metadata device lora_r lora_alpha lora_dropout target_modules
use_rslora use_4bit use_8bit bnb_4bit_quant_type use_nested_quant bf16 num_train_epochs max_steps
per_device_train_batch_size per_device_eval_batch_size gradient_accumulation_steps gradient_checkpointing max_grad_norm
learning_rate weight_decay optim adam_beta1 adam_beta2 adam_epsilon lr_scheduler_type warmup_ratio warmup_steps seed
max_seq_length on_overflow train_on use_chat_template chat_template group_by_length eval_split eval_steps logging_steps
save_steps save_total_limit exact_resume output""".split())
if UNSLOTH:  # it computes in bf16, and in 4 bits always in NF4, quantised twice
    OBEYED -= {"bf16", "bnb_4bit_quant_type"}
OPTIMIZERS = {"paged_adamw_32bit": "adamw_torch", "adamw_torch": "adamw_torch"}  # the same numbers, from pageable memory
NO_QUANTIZATION = f"quantised weights take the Python package bitsandbytes. Run: {sys.executable} -m pip install bitsandbytes"


class Refusal(Exception):
    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


def versions():
    """The packages' versions; Refusal where one is missing. Imports nothing: that takes many seconds."""
    found = []
    for package in reversed(PACKAGES):
        try:
            found.insert(0, f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            raise Refusal("provider_unavailable", f"{TITLES[package]} is not installed: there is no Python package "
                          f"{package} for {sys.executable}. Run: {sys.executable} -m pip install {package}  (pip install {package})")
    return ", ".join(found)


def versions_that_run():
    """Unsloth refuses to be imported where there is no GPU. (/dev/dxg: in WSL)"""
    found = versions()
    if UNSLOTH and not any(map(os.path.exists, ("/dev/nvidiactl", "/dev/dxg"))):
        raise Refusal("provider_unavailable", "Unsloth needs an NVIDIA GPU with its driver: there is no /dev/nvidiactl here")
    return found


def capabilities():
    try:
        version = versions_that_run()
    except Refusal as refusal:
        return {"protocol": 1, "available": False, "reason": str(refusal)}
    how = "Unsloth's own patches, on an NVIDIA GPU" if UNSLOTH else "Transformers' Trainer with PEFT"
    rows = [{"architecture": "*", "task": "text-generation", "strategy": strategy, "level": "limited", "reason":
             f"{how}; an interrupted run does not go on bit for bit"} for strategy in ("sft", "qlora")]
    if not importlib.util.find_spec("bitsandbytes"):
        rows[1].update(level="unsupported", reason=NO_QUANTIZATION)
    return {"protocol": 1, "version": version, "available": True, "exact_resume": False, "capabilities": rows}


class Protocol:
    """Events out, commands in. `stop` is what the worker asked for: None, "pause" or "cancel"."""
    def __init__(self):
        self.out, self.lock, self.stop, self.checkpoint = os.fdopen(3, "wb", buffering=0), threading.Lock(), None, False
        threading.Thread(target=self.obey, daemon=True).start()

    def say(self, event, /, **members):
        line = json.dumps({"type": event, **members}).encode() + b"\n"
        with self.lock:
            while line:
                line = line[self.out.write(line):]

    def obey(self):
        for line in os.fdopen(4, "r"):
            command = json.loads(line)
            if command["type"] == "ping":
                self.say("pong", number=command["number"])
                continue
            if command["type"] in ("pause", "cancel"):
                self.stop = command["type"]
            self.checkpoint |= command["type"] == "checkpoint"
            self.say("ack", number=command["number"])


def check_widths(model, blocks):
    """bitsandbytes on a CPU repacks blocks by rows: one that spans two rows ends in an error in mid-run."""
    for name, layer in model.named_modules():
        if type(layer).__name__ == "Linear4bit" and layer.in_features % blocks:
            raise Refusal("unsupported_field", f"use_4bit: bitsandbytes on a CPU takes layers whose input is a multiple of {blocks} wide; "
                          f"{name} has {layer.in_features}. Leave use_4bit and qlora out, or use a GPU")


def load(request, torch, device, longest):
    from peft import LoraConfig, get_peft_model
    four, eight = request["use_4bit"] or (request["use_4bit"] is None and request["strategy"] == "qlora"), request["use_8bit"]
    if (four or eight) and not importlib.util.find_spec("bitsandbytes"):
        raise Refusal("provider_unavailable", NO_QUANTIZATION)
    bf16 = request["bf16"] if request["bf16"] is not None else device == "cuda" and torch.cuda.is_bf16_supported()
    targets = request["target_modules"]
    lora = dict(r=request["lora_r"], lora_alpha=request["lora_alpha"], lora_dropout=request["lora_dropout"],
                target_modules="all-linear" if targets == ["all-linear"] else targets, use_rslora=request["use_rslora"])
    if UNSLOTH:
        from unsloth import FastLanguageModel
        linear = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        model, tokenizer = FastLanguageModel.from_pretrained(request["model_name"], load_in_4bit=four, load_in_8bit=eight,
                                                             max_seq_length=longest)
        lora["target_modules"] = linear if targets == ["all-linear"] else targets
        model = FastLanguageModel.get_peft_model(model, **lora, random_state=request["seed"],
                                                 use_gradient_checkpointing="unsloth" if request["gradient_checkpointing"] else False)
        return model, tokenizer, bf16
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
    quantization = BitsAndBytesConfig(load_in_4bit=four, load_in_8bit=eight, bnb_4bit_quant_type=request["bnb_4bit_quant_type"],
                                      bnb_4bit_use_double_quant=request["use_nested_quant"]) if four or eight else None
    model = AutoModelForCausalLM.from_pretrained(request["model_name"], dtype=torch.bfloat16 if bf16 else torch.float32,
                                                 quantization_config=quantization).to(device)
    if four and device == "cpu":
        check_widths(model, 64)
    if four or eight:
        from peft import prepare_model_for_kbit_training
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    if request["gradient_checkpointing"]:
        model.enable_input_require_grads()
    return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **lora)), AutoTokenizer.from_pretrained(request["model_name"]), bf16


def train(request, protocol, version):
    run, started = request["run"], time.monotonic()
    for field in run["changed"]:
        if field not in OBEYED:
            raise Refusal("unsupported_field", f"{field}: the provider {NAME} does not obey it; leave it out")
    if set(request["output"]) - {"adapter"}:
        raise Refusal("unsupported_field", f"output: the provider {NAME} writes adapter only")
    if request["optim"] not in OPTIMIZERS:
        raise Refusal("unsupported_field", f"optim: the provider {NAME} knows {', '.join(OPTIMIZERS)}")
    if request["device"] == "cpu" and UNSLOTH:
        raise Refusal("provider_unavailable", "device: cpu is asked for, but Unsloth needs an NVIDIA GPU")
    if UNSLOTH:
        import unsloth  # noqa: F401, before transformers: it patches that
    import torch
    from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed
    if request["device"] == "cuda" and not torch.cuda.is_available():
        raise Refusal("provider_unavailable", f"device: cuda is asked for, but PyTorch {torch.__version__} finds no GPU here")
    device = "cuda" if request["device"] != "cpu" and torch.cuda.is_available() else "cpu"
    set_seed(request["seed"])
    protocol.say("progress", phase="load", fraction=0.1)
    read = lambda path: [json.loads(line) for line in open(path)] if path else []
    rows, evals = read(run.get("train_samples")), read(run.get("eval_samples"))
    model, tokenizer, bf16 = load(request, torch, device, max(len(row["input_ids"]) for row in rows + evals))
    protocol.say("progress", phase="load", fraction=1)
    if "train_sampling_strategy" in {field.name for field in dataclasses.fields(TrainingArguments)}:  # Transformers 5
        more = {"train_sampling_strategy": "group_by_length" if request["group_by_length"] else "random",
                "warmup_steps": request["warmup_steps"] or request["warmup_ratio"]}
    else:
        more = {"group_by_length": request["group_by_length"], "warmup_steps": request["warmup_steps"], "warmup_ratio": request["warmup_ratio"]}
    arguments = TrainingArguments(
        output_dir=run["checkpoint_dir"], use_cpu=device == "cpu", bf16=bf16 and device == "cuda", seed=request["seed"],
        num_train_epochs=request["num_train_epochs"], max_steps=request["max_steps"], learning_rate=request["learning_rate"],
        per_device_train_batch_size=request["per_device_train_batch_size"],
        per_device_eval_batch_size=request["per_device_eval_batch_size"],
        gradient_accumulation_steps=request["gradient_accumulation_steps"],
        gradient_checkpointing=request["gradient_checkpointing"] and not UNSLOTH, max_grad_norm=request["max_grad_norm"],
        weight_decay=request["weight_decay"], optim=OPTIMIZERS[request["optim"]], adam_beta1=request["adam_beta1"],
        adam_beta2=request["adam_beta2"], adam_epsilon=request["adam_epsilon"], lr_scheduler_type=request["lr_scheduler_type"],
        logging_steps=request["logging_steps"], **more, eval_strategy="steps" if evals else "no", eval_steps=request["eval_steps"], report_to=[], disable_tqdm=True,
        save_strategy="steps" if request["save_steps"] else "no", save_steps=request["save_steps"] or 500,
        save_total_limit=None if "job_id" in run else request["save_total_limit"],  # a worker keeps the limit in its storage
        logging_nan_inf_filter=False, remove_unused_columns=False, dataloader_pin_memory=device == "cuda")

    tokens = {"now": 0, "before": 0, "at": 0}
    stopped = None  # what was obeyed: a pause that came after the last step left no checkpoint

    def collate(batch):
        longest = max(len(row["input_ids"]) for row in batch)
        pad = lambda name, value: torch.tensor([row[name] + [value] * (longest - len(row[name])) for row in batch])
        mask = torch.tensor([[1] * len(row["input_ids"]) + [0] * (longest - len(row["input_ids"])) for row in batch])
        return {"input_ids": pad("input_ids", 0), "labels": pad("labels", -100), "attention_mask": mask}

    class Counting(Trainer):
        def training_step(self, model, inputs, *more, **named):
            tokens["now"] += int(inputs["attention_mask"].sum())
            return super().training_step(model, inputs, *more, **named)

    class Teller(TrainerCallback):
        def on_train_begin(self, args, state, control, **_):
            tokens["at"] = time.monotonic() - started
            plan = json.dumps({"request": {k: v for k, v in request.items() if k != "run"}, "version": version}, sort_keys=True)
            protocol.say("plan", managed_bytes=sum(p.numel() * p.element_size() for p in model.parameters()),
                         total_steps=state.max_steps, train_rows=len(rows), eval_rows=len(evals),
                         train_tokens=sum(len(row["input_ids"]) for row in rows), truncated_rows=0, dropped_rows=0,
                         numeric_plan_sha256=hashlib.sha256(plan.encode()).hexdigest())

        def on_log(self, args, state, control, logs=None, **_):
            if "loss" in logs:
                for name in ("loss", "grad_norm"):  # JSON has no NaN, and the filter of Transformers would hide it
                    if not math.isfinite(logs.get(name, 0)):
                        raise Refusal("loss_not_finite", f"step {state.global_step}: {name} is {logs[name]}; a lower learning_rate may help")
                seconds, count = time.monotonic() - started, tokens["now"] - tokens["before"]
                protocol.say("step", step=state.global_step, epoch=state.epoch, loss=float(logs["loss"]), tokens=count,
                             learning_rate=float(logs["learning_rate"]), gradient_norm=float(logs.get("grad_norm", 0)),
                             tokens_per_second=count / max(seconds - tokens["at"], 1e-9), elapsed_seconds=seconds)
                tokens.update(before=tokens["now"], at=seconds)

        def on_step_end(self, args, state, control, **_):
            protocol.say("progress", phase="train", fraction=state.global_step / state.max_steps)
            nonlocal stopped
            stopped = protocol.stop
            control.should_save |= protocol.checkpoint or stopped == "pause"
            control.should_training_stop |= stopped is not None
            protocol.checkpoint = False

        def on_save(self, args, state, control, **_):
            protocol.say("checkpoint", step=state.global_step, path=os.path.join(args.output_dir, f"checkpoint-{state.global_step}"))

        def on_evaluate(self, args, state, control, metrics=None, **_):
            if not math.isfinite(metrics["eval_loss"]):
                raise Refusal("loss_not_finite", f"step {state.global_step}: the loss of the evaluation is {metrics['eval_loss']}")
            protocol.say("eval", step=state.global_step, loss=metrics["eval_loss"], perplexity=float(torch.tensor(metrics["eval_loss"]).exp()))

        def on_prediction_step(self, args, state, control, **_):
            protocol.say("progress", phase="evaluate", fraction=0)

    trainer = Counting(model=model, args=arguments, train_dataset=rows, eval_dataset=evals or None, data_collator=collate,
                       callbacks=[Teller()])
    result = trainer.train(resume_from_checkpoint=run.get("resume_from"))
    if protocol.stop == "cancel" or stopped:
        return ("cancelled", 4) if protocol.stop == "cancel" else ("paused", 3), {}
    loss = trainer.evaluate()["eval_loss"] if evals else None
    protocol.say("progress", phase="save", fraction=0)
    folder = os.path.join(run["output_dir"], "adapter")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    record = os.path.join(run["output_dir"], "training.json")
    with open(record, "w") as file:
        json.dump({"provider": NAME, "versions": version, "request": request, "log": trainer.state.log_history}, file, indent=1)
    size = sum(os.path.getsize(os.path.join(folder, name)) for name in os.listdir(folder))
    protocol.say("artifact", kind="adapter", path=folder, size_bytes=size)
    protocol.say("artifact", kind="training_json", path=record, size_bytes=os.path.getsize(record))
    return ("done", 0), {"steps": trainer.state.global_step, "train_loss": result.training_loss, "eval_loss": loss,
                         "perplexity": float(torch.tensor(loss).exp()) if loss is not None else None, "trained_tokens": tokens["now"]}


def main():
    if sys.argv[1:] == ["capabilities"]:
        print(json.dumps(capabilities()))
        return 0
    if len(sys.argv) != 3 or sys.argv[1] != "run":
        sys.exit("usage: provider.py capabilities | run REQUEST.json")
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TOKENIZERS_PARALLELISM="false", UNSLOTH_DISABLE_STATISTICS="1")  # all is on this machine
    protocol = Protocol()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        version = versions_that_run()
        protocol.say("hello", protocol=1, version=version, devices=[{"name": "cpu", "description": "CPU", "uuid": "", "memory_bytes": memory}])
        (last, status), members = train(json.load(open(sys.argv[2])), protocol, version)
    except Refusal as refusal:
        last, status, members = "error", 1, {"code": refusal.code, "message": str(refusal)}
    except MemoryError as error:
        last, status, members = "error", 1, {"code": "out_of_memory", "message": str(error) or "out of memory"}
    except Exception as error:  # the worker keeps the trace in its own log
        sys.excepthook(*sys.exc_info())
        code = "out_of_memory" if "out of memory" in str(error) else "internal"
        last, status, members = "error", 1, {"code": code, "message": f"{type(error).__name__}: {error}"[:2000]}
    protocol.say(last, **members)
    return status


if __name__ == "__main__":
    exit_status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_status)  # what the packages would still tidy up takes seconds, and is the system's to free

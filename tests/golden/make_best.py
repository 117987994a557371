"""Writes best.json: which evaluation Transformers' Trainer holds to be the best, and at which one its EarlyStoppingCallback
stops. The decisions are those of the library's own methods, fed with made-up losses.

    python tests/golden/make_best.py tests/golden/best.json
"""
import json
import random
import sys

from transformers import EarlyStoppingCallback, Trainer, TrainerControl, TrainerState, TrainingArguments


def decide(losses, patience):
    arguments = TrainingArguments(output_dir="/tmp/unused", eval_strategy="steps", save_strategy="steps", eval_steps=1,
                                  save_steps=1, load_best_model_at_end=True, metric_for_best_model="eval_loss",
                                  greater_is_better=False, use_cpu=True, report_to=[])
    trainer = Trainer.__new__(Trainer)
    trainer.args, trainer.state = arguments, TrainerState()
    callback, control = EarlyStoppingCallback(early_stopping_patience=patience), TrainerControl()
    best = stop = None
    for index, loss in enumerate(losses):
        trainer.state.global_step = index + 1
        metrics = {"eval_loss": loss}
        # The trainer's order: callbacks hear of the evaluation before the best metric is brought up to date.
        callback.on_evaluate(arguments, trainer.state, control, metrics=metrics)
        if trainer._determine_best_metric(metrics=metrics, trial=None):
            best = index
        if control.should_training_stop:
            stop = index
            break
    return {"losses": losses, "patience": patience, "best": best, "stop": stop}


def main():
    draw = random.Random(20260102)
    cases = [decide(losses, patience) for losses in ([3.0, 2.0, 1.0], [1.0, 1.0, 1.0], [1.0, 2.0, 0.5, 0.5, 0.5, 0.4])
             for patience in (1, 2, 3)]
    for _ in range(40):
        losses = [draw.choice([0.25, 0.5, 0.75, 1.0, 1.25, 1.5]) for _ in range(draw.randint(1, 12))]
        cases.append(decide(losses, draw.randint(1, 4)))
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        json.dump(cases, file, indent=0, separators=(",", ":"))
        file.write("\n")


main()

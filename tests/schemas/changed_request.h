/* A request in which every field that this version takes differs from its default, but use_8bit, which
 * contradicts use_4bit. */
#ifndef MF_TESTS_SCHEMAS_CHANGED_REQUEST_H
#define MF_TESTS_SCHEMAS_CHANGED_REQUEST_H

static const char changed_request[] =
    "{\"task\":\"text-generation\",\"model_name\":\"/models/m\",\"revision\":\"v1.0\",\"dataset\":\"/data/"
    "d.jsonl\",\"provider\":\"unsloth\","
    "\"request_id\":\"nightly/2026-11-25 "
    "\xC3\xA9\",\"tenant\":\"team-a\",\"submitted_by\":\"alice\",\"batch_id\":\"b1\","
    "\"priority\":-7,\"preemptible\":true,\"run_at\":\"2030-01-01T00:00:00.500Z\",\"deadline\":\"2030-01-"
    "02T00:00:00.000Z\",\"max_"
    "attempts\":5,"
    "\"labels\":{\"team\":\"x\"},\"metadata\":{\"a\":\"1\",\"b\":\"\xE2\x82\xAC\"},\"device\":\"cuda\","
    "\"gpus\":2,\"min_gpu_memory_gib\":10.5,"
    "\"device_map\":\"cuda:1\",\"provider_config\":{\"share\":\"0.5\"},"
    "\"memory_budget_gib\":2.5,\"lora_"
    "r\":8,"
    "\"lora_alpha\":16.5,\"lora_dropout\":0.0,\"target_modules\":[\"q_proj\",\"v_proj\"],\"use_rslora\":true,"
    "\"modules_to_save\":[\"lm_head\"],"
    "\"bf16\":false,\"strategy\":\"qlora\",\"use_4bit\":true,\"bnb_4bit_quant_type\":\"fp4\","
    "\"bnb_4bit_compute_dtype\":\"float32\",\"use_nested_quant\":true,"
    "\"num_train_epochs\":2.5,\"max_steps\":1000,\"per_device_train_batch_size\":2,\"per_device_eval_batch_"
    "size\":3,"
    "\"gradient_accumulation_steps\":1,\"gradient_checkpointing\":false,\"max_grad_norm\":1.0,\"learning_"
    "rate\":1e-5,"
    "\"weight_decay\":0.0,\"optim\":\"adamw_torch\",\"adam_beta1\":0.8,\"adam_beta2\":0.99,\"adam_epsilon\":"
    "1e-6,"
    "\"lr_scheduler_type\":\"linear\",\"warmup_ratio\":0.1,\"warmup_steps\":10,\"seed\":4294967295,\"max_seq_"
    "length\":512,"
    "\"on_overflow\":\"drop\",\"train_on\":\"all\",\"use_chat_template\":true,\"chat_template\":\"{{ "
    "messages }}\\n\","
    "\"group_by_length\":false,\"eval_split\":0.0,\"eval_steps\":7,\"validation_dataset\":\"/data/"
    "v.jsonl\",\"load_best_model_at_end\":true,"
    "\"metric_for_best_model\":\"eval_perplexity\",\"early_stopping_patience\":3,\"packing\":true,\"adapter_"
    "name_or_path\":\"/"
    "adapters/a\",\"logging_steps\":5,\"save_"
    "total_limit\": "
    "3, \"save_steps\":9,\"lr_scheduler_kwargs\":{\"num_cycles\":\"1\"},\"exact_resume\":false}";

#endif

#include "tests/common/unit.h"

#include "common/json.h"
#include "schemas/request.h"
#include "tests/schemas/changed_request.h"

#define MINIMAL "\"task\":\"text-generation\",\"model_name\":\"m\",\"dataset\":\"d\""

/* Reads {MINIMAL, more}. */
static enum mf_status read_with(const char *more, struct mf_request *request, struct mf_error *error) {
    char text[4096];
    snprintf(text, sizeof text, "{" MINIMAL "%s%s}", *more ? "," : "", more);
    json_t *object;
    if (mf_json_parse(text, strlen(text), "test", &object, error))
        fail_msg("%s", error->message);
    enum mf_status status = mf_request_from_json(object, false, request, error);
    json_decref(object);
    return status;
}

/* {MINIMAL, more} is refused with exactly this code and message. */
static void refused(const char *more, enum mf_status expected, const char *message) {
    struct mf_request request;
    struct mf_error error = {0};
    enum mf_status status = read_with(more, &request, &error);
    mf_request_free(&request);
    if (status != expected)
        fail_msg("%s gave %s (%s), expected %s", more, mf_status_code(status), error.message,
                 mf_status_code(expected));
    assert_string_equal(error.message, message);
}

static void accepted(const char *more) {
    struct mf_request request;
    struct mf_error error;
    if (read_with(more, &request, &error))
        fail_msg("%s was refused: %s", more, error.message);
    mf_request_free(&request);
}

static void three_fields_make_a_request_and_the_rest_has_the_documented_defaults(void **state) {
    (void)state;
    struct mf_request request;
    struct mf_error error;
    assert_status(read_with("", &request, &error), MF_OK);
    assert_string_equal(request.provider, "huggingface");
    assert_string_equal(request.strategy, "sft");
    assert_string_equal(request.tenant, "default");
    assert_null(request.request_id);
    assert_int_equal(request.lora_r, 16);
    assert_true(request.lora_alpha == 32 && request.lora_dropout == 0.1);
    assert_false(request.use_4bit.set);
    assert_string_equal(request.bnb_4bit_quant_type, "nf4");
    assert_true(request.num_train_epochs == 1);
    assert_int_equal(request.per_device_train_batch_size, 1);
    assert_int_equal(request.gradient_accumulation_steps, 4);
    assert_true(request.gradient_checkpointing);
    assert_true(request.max_grad_norm == 0.3 && request.learning_rate == 2e-4 &&
                request.weight_decay == 0.001);
    assert_string_equal(request.optim, "paged_adamw_32bit");
    assert_string_equal(request.lr_scheduler_type, "cosine");
    assert_int_equal(request.max_steps, -1);
    assert_true(request.warmup_ratio == 0.03);
    assert_true(request.group_by_length && !request.packing && !request.max_seq_length.set);
    assert_true(!request.use_chat_template && request.eval_split == 0.2);
    assert_int_equal(request.eval_steps, 100);
    assert_string_equal(request.device, "auto");
    assert_string_equal(request.finetuning, "lora");
    assert_int_equal(request.target_modules.count, 1);
    assert_string_equal(request.target_modules.item[0], "all-linear");
    assert_string_equal(request.train_on, "completion");
    assert_string_equal(request.on_overflow, "truncate");
    assert_true(request.deterministic);
    assert_string_equal(request.output.item[0], "adapter");
    assert_int_equal(json_object_size(request.metadata), 0);
    mf_request_free(&request);
    mf_request_free(&request); /* harmless */
}

static void every_field_survives_the_way_out_and_back(void **state) {
    (void)state;
    struct mf_request request, again;
    struct mf_error error;
    json_t *object, *other, *given;
    char *text, *canonical;
    assert_status(mf_request_from_text(changed_request, strlen(changed_request), "test", &request, &error),
                  MF_OK);
    assert_status(mf_request_to_json(&request, true, &object, &error), MF_OK);
    /* what was given is what is said to differ, no more and no less */
    assert_status(mf_json_parse(changed_request, strlen(changed_request), "test", &given, &error), MF_OK);
    assert_status(mf_json_canonical(given, &text, &error), MF_OK);
    assert_status(mf_json_canonical(object, &canonical, &error), MF_OK);
    assert_string_equal(text, canonical);
    /* and every field that works is among them */
    for (size_t i = 0; i < MF_REQUEST_FIELD_COUNT; i++) {
        const struct mf_field *field = &mf_request_fields()[i];
        bool cannot_change = !strcmp(field->name, "finetuning") || !strcmp(field->name, "output") ||
                             !strcmp(field->name, "use_8bit"); /* it contradicts use_4bit, which is there */
        if (!field->refusal && !cannot_change && !json_object_get(object, field->name))
            fail_msg("%s is not in changed_request", field->name);
    }
    assert_status(mf_request_from_json(object, false, &again, &error), MF_OK);
    json_decref(object);
    assert_status(mf_request_to_json(&request, false, &object, &error), MF_OK);
    assert_status(mf_request_to_json(&again, false, &other, &error), MF_OK);
    assert_int_equal(json_object_size(object), MF_REQUEST_FIELD_COUNT);
    assert_true(json_equal(object, other));
    json_decref(object);
    json_decref(other);
    json_decref(given);
    free(text);
    free(canonical);
    mf_request_free(&request);
    mf_request_free(&again);
}

static void missing_and_unknown_fields_are_named(void **state) {
    (void)state;
    struct mf_request request;
    struct mf_error error;
    static const char no_dataset[] =
        "{\"task\":\"text-generation\",\"model_name\":\"m\",\"request_id\":\"r1\",\"tenant\":\"t1\"}";
    assert_status(mf_request_from_text(no_dataset, strlen(no_dataset), "a.json", &request, &error),
                  MF_ERROR_MISSING_FIELD);
    assert_string_equal(
        error.message,
        "a.json: dataset: missing; The training rows, a JSONL file or a JSON array: a path, https:// "
        "or s3://bucket/key.");
    assert_string_equal(request.tenant, "t1"); /* for the record of the refusal */
    assert_string_equal(request.request_id, "r1");
    mf_request_free(&request);
    /* also when what is wrong comes before them */
    static const char wrong_task[] = "{\"task\":5,\"request_id\":\"r2\",\"tenant\":\"t2\"}";
    assert_status(mf_request_from_text(wrong_task, strlen(wrong_task), "a.json", &request, &error),
                  MF_ERROR_INVALID_FIELD);
    assert_string_equal(request.tenant, "t2");
    assert_string_equal(request.request_id, "r2");
    mf_request_free(&request);
    /* but never a name that breaks the rules */
    assert_status(read_with("\"tenant\":\"a b\",\"request_id\":\"x\\u0007\"", &request, &error),
                  MF_ERROR_INVALID_FIELD);
    assert_null(request.tenant);
    assert_null(request.request_id);
    mf_request_free(&request);
    refused("\"learning_rat\":1", MF_ERROR_UNKNOWN_FIELD,
            "learning_rat: no such field; did you mean learning_rate?");
    refused("\"zzz\":1", MF_ERROR_UNKNOWN_FIELD, "zzz: no such field; schemas/FIELDS.md lists them all");
    refused("\"run\":{}", MF_ERROR_UNKNOWN_FIELD, "run: no such field; schemas/FIELDS.md lists them all");
    assert_status(mf_request_from_text("[]", 2, "a.json", &request, &error), MF_ERROR_INVALID_FIELD);
    mf_request_free(&request);
    assert_status(mf_request_from_text("{", 1, "a.json", &request, &error), MF_ERROR_INVALID_JSON);
    mf_request_free(&request);
}

static void the_trainers_file_may_carry_run(void **state) {
    (void)state;
    struct mf_request request;
    struct mf_error error;
    json_t *object =
        json_pack("{s:s,s:s,s:s,s:{}}", "task", "text-generation", "model_name", "m", "dataset", "d", "run");
    assert_status(mf_request_from_json(object, true, &request, &error), MF_OK);
    json_decref(object);
    mf_request_free(&request);
}

static void ranges_are_kept_and_told(void **state) {
    (void)state;
    refused("\"learning_rate\":2", MF_ERROR_INVALID_FIELD,
            "learning_rate: 2 is not in (0, 1]; the default is 0.0002");
    refused("\"learning_rate\":0", MF_ERROR_INVALID_FIELD,
            "learning_rate: 0 is not in (0, 1]; the default is 0.0002");
    accepted("\"learning_rate\":1");
    refused("\"lora_dropout\":1", MF_ERROR_INVALID_FIELD,
            "lora_dropout: 1 is not in [0, 1); the default is 0.1");
    /* 0 and 1 to a 32-bit float */
    refused("\"lora_dropout\":0.9999999999", MF_ERROR_INVALID_FIELD,
            "lora_dropout: 0.9999999999 is not in [0, 1); the default is 0.1");
    refused("\"adam_beta1\":0.9999999999", MF_ERROR_INVALID_FIELD,
            "adam_beta1: 0.9999999999 is not in [0, 1); the default is 0.9");
    refused("\"adam_beta2\":0.9999999999", MF_ERROR_INVALID_FIELD,
            "adam_beta2: 0.9999999999 is not in [0, 1); the default is 0.999");
    refused("\"adam_epsilon\":1e-60", MF_ERROR_INVALID_FIELD,
            "adam_epsilon: 1e-60 is not in (0, 1]; the default is 1e-8");
    accepted("\"adam_beta2\":0.9999999");
    accepted("\"lora_dropout\":0");
    refused("\"lora_r\":0", MF_ERROR_INVALID_FIELD, "lora_r: 0 is not in [1, 1024]; the default is 16");
    refused("\"lora_r\":1.5", MF_ERROR_INVALID_FIELD, "lora_r: expected an integer, found a number (1.5)");
    refused("\"lora_r\":\"16\"", MF_ERROR_INVALID_FIELD,
            "lora_r: expected an integer, found a string (\"16\")");
    refused("\"max_seq_length\":7", MF_ERROR_INVALID_FIELD, "max_seq_length: 7 is not in [8, 1048576]");
    refused("\"max_steps\":0", MF_ERROR_INVALID_FIELD,
            "max_steps: 0 trains nothing; use -1 for no limit, or 1 and more");
    refused("\"max_steps\":-2", MF_ERROR_INVALID_FIELD,
            "max_steps: -2 is not in [-1, 100000000]; the default is -1");
    refused("\"bf16\":1", MF_ERROR_INVALID_FIELD, "bf16: expected true or false, found an integer (1)");
    refused("\"run_at\":\"tomorrow\"", MF_ERROR_INVALID_FIELD,
            "run_at: expected a time with its zone, such as \"2026-11-25T18:00:00Z\", found a string "
            "(\"tomorrow\")");
    refused("\"run_at\":\"1960-01-01T00:00:00Z\"", MF_ERROR_INVALID_FIELD,
            "run_at: not between the years 1970 and 9999");
    refused("\"batch_id\":\"\"", MF_ERROR_INVALID_FIELD, "batch_id: 0 bytes long, 1 to 200 are allowed");
    refused("\"batch_id\":\"a\\u0007\"", MF_ERROR_INVALID_FIELD, "batch_id: holds control characters");
    accepted("\"lora_r\":8.0"); /* a whole number, however it is written */
    accepted("\"learning_rate\":null");
}

static void names_keep_their_forms(void **state) {
    (void)state;
    refused("\"tenant\":\"a b\"", MF_ERROR_INVALID_FIELD,
            "tenant: \"a b\" may hold only letters, digits, '.', '_' and '-', at most 64");
    refused("\"provider\":\"Unsloth\"", MF_ERROR_INVALID_FIELD,
            "provider: \"Unsloth\" may hold only small letters, digits, '_' and '-', at most 32");
    accepted("\"provider\":\"xyz\""); /* whether a worker has it is found out later */
    refused("\"device_map\":\"cuda\"", MF_ERROR_INVALID_FIELD,
            "device_map: \"cuda\" is neither auto, balanced nor cuda:N");
    assert_true(mf_tenant_name_valid("A.b_c-9") && mf_provider_name_valid("a_b-9") &&
                mf_request_id_valid("a b/\xC3\xA9"));
    assert_false(mf_tenant_name_valid("") || mf_provider_name_valid("") || mf_request_id_valid(""));
    assert_false(mf_request_id_valid("a\n") || mf_request_id_valid("\xFF"));
    char long_name[202];
    memset(long_name, 'a', 201);
    long_name[201] = 0;
    assert_false(mf_request_id_valid(long_name) || mf_tenant_name_valid(long_name) ||
                 mf_provider_name_valid(long_name));
    assert_true(mf_request_id_valid(long_name + 1));
}

static void aliases_mean_the_field(void **state) {
    (void)state;
    struct mf_request request;
    struct mf_error error;
    assert_status(read_with("\"num_gpus\":1,\"epochs\":3,\"optim\":\"adamw_torch_fused\","
                            "\"outputs\":\"adapter\",\"lora_target_modules\":\"q_proj\"",
                            &request, &error),
                  MF_OK);
    assert_true(request.num_train_epochs == 3);
    assert_string_equal(request.optim, "adamw_torch");
    assert_string_equal(request.target_modules.item[0], "q_proj");
    mf_request_free(&request);
    refused("\"gpus\":1,\"num_gpus\":1", MF_ERROR_CONFLICTING_FIELDS,
            "gpus and num_gpus are the same field: give only gpus");
    for (size_t i = 0; i < MF_REQUEST_FIELD_COUNT; i++)
        assert_ptr_equal(mf_request_field_find(mf_request_fields()[i].name), &mf_request_fields()[i]);
    assert_string_equal(mf_request_field_find("num_gpus")->name, "gpus");
    assert_null(mf_request_field_find("num_gp"));
    assert_null(mf_request_field_find(""));
}

static void choices_are_checked(void **state) {
    (void)state;
    /* `constant` ignores warm-up: a name that asks for one must not become it silently. */
    refused(
        "\"lr_scheduler_type\":\"step\"", MF_ERROR_INVALID_FIELD,
        "lr_scheduler_type: \"step\" is not one of cosine, linear, constant, polynomial, "
        "constant_with_warmup, cosine_with_restarts, inverse_sqrt, cosine_with_min_lr, warmup_stable_decay");
    refused("\"strategy\":\"ppo\"", MF_ERROR_INVALID_FIELD, "strategy: \"ppo\" is not one of sft, qlora");
    refused("\"output\":[\"onnx\"]", MF_ERROR_INVALID_FIELD,
            "output: \"onnx\" is not one of adapter, merged_16bit, gguf");
    refused("\"output\":[]", MF_ERROR_INVALID_FIELD, "output: 0 items, 1 to 3 are allowed");
    refused("\"output\":[\"adapter\",\"adapter\"]", MF_ERROR_INVALID_FIELD,
            "output: \"adapter\" is listed twice");
    refused("\"output\":[\"a\",\"b\",\"c\",\"d\"]", MF_ERROR_INVALID_FIELD,
            "output: 4 items, at most 3 are allowed");
    refused("\"target_modules\":[\"all-linear\",\"q_proj\"]", MF_ERROR_INVALID_FIELD,
            "target_modules: all-linear names them all; leave the others out");
    refused("\"target_modules\":[\"q_proj\",3]", MF_ERROR_INVALID_FIELD,
            "target_modules: expected a string, found an integer (3)");
    refused("\"target_modules\":3", MF_ERROR_INVALID_FIELD,
            "target_modules: expected a list of strings, found an integer (3)");
}

static void maps_hold_strings(void **state) {
    (void)state;
    struct mf_request request;
    struct mf_error error;
    assert_status(read_with("\"metadata\":{\"i\":1,\"r\":0.10,\"b\":true,\"s\":\"x\"}", &request, &error),
                  MF_OK);
    assert_string_equal(json_string_value(json_object_get(request.metadata, "i")), "1");
    assert_string_equal(json_string_value(json_object_get(request.metadata, "r")), "0.1");
    assert_string_equal(json_string_value(json_object_get(request.metadata, "b")), "true");
    mf_request_free(&request);
    refused("\"metadata\":{\"a\":{}}", MF_ERROR_INVALID_FIELD,
            "metadata: \"a\": expected a string, found an object");
    refused("\"metadata\":[]", MF_ERROR_INVALID_FIELD,
            "metadata: expected an object of strings, found an array ([])");
    refused("\"labels\":{\"\":\"x\"}", MF_ERROR_INVALID_FIELD,
            "labels: a name in it is 0 bytes long or holds control characters; 1 to 128 are allowed");
}

static void fields_that_contradict_are_refused(void **state) {
    (void)state;
    static const char *const pairs[] = {
        "\"fp16\":true,\"bf16\":true",
        "\"strategy\":\"qlora\",\"use_4bit\":false",
        "\"use_4bit\":true,\"use_8bit\":true",
        "\"strategy\":\"qlora\",\"use_8bit\":true",
        "\"finetuning\":\"full\",\"use_4bit\":true",
        "\"finetuning\":\"full\",\"strategy\":\"qlora\"",
        "\"finetuning\":\"full\",\"use_8bit\":true",
        "\"finetuning\":\"full\",\"lora_r\":8",
        "\"finetuning\":\"full\",\"lora_alpha\":8",
        "\"finetuning\":\"full\",\"lora_dropout\":0",
        "\"finetuning\":\"full\",\"target_modules\":[\"q_proj\"]",
        "\"finetuning\":\"full\",\"use_rslora\":true",
        "\"finetuning\":\"full\",\"modules_to_save\":[\"lm_head\"]",
        "\"finetuning\":\"full\",\"adapter_name_or_path\":\"x\"",
        "\"use_nested_quant\":true",
        "\"bnb_4bit_quant_type\":\"fp4\"",
        "\"bnb_4bit_compute_dtype\":\"float32\"",
        "\"use_8bit\":true,\"use_nested_quant\":true",
        "\"use_4bit\":true,\"bf16\":true,\"bnb_4bit_compute_dtype\":\"float32\"",
        "\"use_4bit\":true,\"bf16\":false,\"bnb_4bit_compute_dtype\":\"bf16\"",
        "\"device\":\"cpu\",\"gpus\":2",
        "\"device\":\"cpu\",\"min_gpu_memory_gib\":10",
        "\"device\":\"cpu\",\"device_map\":\"cuda:0\"",
        "\"chat_template\":\"x\"",
        "\"lr_scheduler_type\":\"constant\",\"warmup_steps\":3",
        "\"lr_scheduler_type\":\"constant\",\"warmup_ratio\":0.5",
        "\"optim\":\"sgd\",\"adam_beta1\":0.5",
        "\"optim\":\"sgd\",\"adam_beta2\":0.5",
        "\"optim\":\"sgd\",\"adam_epsilon\":0.5",
        "\"eval_split\":0,\"load_best_model_at_end\":true",
        "\"eval_split\":0,\"early_stopping_patience\":3",
        "\"run_at\":\"2030-01-01T00:00:00Z\",\"deadline\":\"2030-01-01T00:00:00Z\"",
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        struct mf_request request;
        struct mf_error error = {0};
        enum mf_status status = read_with(pairs[i], &request, &error);
        mf_request_free(&request);
        if (status != MF_ERROR_CONFLICTING_FIELDS)
            fail_msg("%s gave %s (%s)", pairs[i], mf_status_code(status), error.message);
    }
    refused("\"run_at\":\"2030-01-01T00:00:00Z\",\"deadline\":\"2029-01-01T00:00:00Z\"",
            MF_ERROR_CONFLICTING_FIELDS, "deadline and run_at: the deadline must be later than run_at");
    accepted("\"run_at\":\"2030-01-01T00:00:00Z\",\"deadline\":\"2030-01-01T00:00:00.001Z\"");
    accepted("\"chat_template\":\"x\",\"use_chat_template\":true");
    accepted("\"strategy\":\"qlora\",\"use_nested_quant\":true,\"bnb_4bit_quant_type\":\"fp4\","
             "\"bnb_4bit_compute_dtype\":\"float32\",\"bf16\":false");
    accepted("\"load_in_4bit\":true,\"bnb_4bit_use_double_quant\":true,\"bf16\":true,"
             "\"bnb_4bit_compute_dtype\":\"bfloat16\"");
    accepted("\"use_8bit\":true,\"use_4bit\":false");
}

static void what_comes_later_is_refused_by_name(void **state) {
    (void)state;
    refused("\"use_4bit\":true,\"bnb_4bit_compute_dtype\":\"fp16\"", MF_ERROR_UNSUPPORTED_FIELD,
            "bnb_4bit_compute_dtype: float16 is refused by this version: fp16 comes later; "
            "bfloat16 and float32 work now");
    accepted(
        "\"packing\":true,\"max_seq_length\":64,\"deterministic\":true,\"gpus\":1,\"device_map\":\"auto\"");
    refused(
        "\"deterministic\":false", MF_ERROR_UNSUPPORTED_FIELD,
        "deterministic: false is refused by this version: every run is deterministic now; leave it at true");
    refused(
        "\"strategy\":\"dpo\"", MF_ERROR_UNSUPPORTED_FIELD,
        "strategy: dpo is refused by this version: preference training comes later; sft and qlora work now");
    refused("\"device\":\"mps\"", MF_ERROR_UNSUPPORTED_FIELD,
            "device: mps is refused by this version: mps is not supported; use auto, cpu or cuda");
    accepted("\"output\":[\"gguf\",\"adapter\",\"merged_16bit\"]");
    accepted("\"revision\":\"main\"");
    accepted("\"provider_config\":{\"a\":\"b\"}"); /* the provider knows its settings */
    accepted("\"device_map\":\"cuda:1\"");
    refused("\"device_map\":\"balanced\"", MF_ERROR_UNSUPPORTED_FIELD,
            "device_map: balanced is refused by this version: a model is not shared among GPUs yet; use auto "
            "or cuda:N");
    /* every choice that the table refuses is refused, and no other */
    size_t count;
    const struct mf_field_choice *choice = mf_request_choices(&count);
    for (size_t i = 0; i < count; i++) {
        const struct mf_field *field = &mf_request_fields()[choice[i].field];
        if (field->required)
            continue;
        char more[256];
        const bool four_bits = !strncmp(field->name, "bnb_4bit_", 9); /* means nothing without use_4bit */
        const bool metric = !strcmp(field->name, "metric_for_best_model"); /* nor this where nothing asks */
        snprintf(more, sizeof more, "%s\"%s\":\"%s\"",
                 four_bits ? "\"use_4bit\":true,"
                 : metric  ? "\"load_best_model_at_end\":true,"
                           : "",
                 field->name, choice[i].value);
        struct mf_request request;
        struct mf_error error;
        enum mf_status status = read_with(more, &request, &error);
        bool is_default = field->default_text && !strcmp(field->default_text, choice[i].value);
        bool expected = choice[i].refusal || (field->refusal && !is_default);
        mf_request_free(&request);
        if ((status == MF_ERROR_UNSUPPORTED_FIELD) != expected || (status && !expected))
            fail_msg("%s gave %s", more, mf_status_code(status));
    }
}

static void text_sets_any_field(void **state) {
    (void)state;
    struct mf_request request;
    struct mf_error error;
    assert_status(read_with("", &request, &error), MF_OK);
    assert_status(mf_request_set_text(&request, "lora_r", "8", &error), MF_OK);
    assert_status(mf_request_set_text(&request, "lr", "1e-3", &error), MF_OK);
    assert_status(mf_request_set_text(&request, "use_rslora", "true", &error), MF_OK);
    assert_status(mf_request_set_text(&request, "max_seq_length", "64", &error), MF_OK);
    assert_status(mf_request_set_text(&request, "max_seq_length", "null", &error), MF_OK);
    assert_status(mf_request_set_text(&request, "target_modules", "q_proj,v_proj", &error), MF_OK);
    assert_status(mf_request_set_text(&request, "labels", "a=1,b=x=y", &error), MF_OK);
    assert_status(mf_request_set_text(&request, "batch_id", "123", &error), MF_OK);
    assert_status(mf_request_set_text(&request, "run_at", "2030-01-01T00:00:00Z", &error), MF_OK);
    assert_int_equal(request.lora_r, 8);
    assert_true(request.learning_rate == 1e-3 && request.use_rslora && !request.max_seq_length.set);
    assert_int_equal(request.target_modules.count, 2);
    assert_string_equal(json_string_value(json_object_get(request.labels, "b")), "x=y");
    assert_string_equal(request.batch_id, "123");
    assert_true(request.run_at.set && request.run_at.value == 1893456000000);
    assert_status(mf_request_set_text(&request, "lora_r", "many", &error), MF_ERROR_INVALID_FIELD);
    assert_string_equal(error.message, "lora_r: expected an integer, found a string (\"many\")");
    assert_status(mf_request_set_text(&request, "lora_r", "5000", &error), MF_ERROR_INVALID_FIELD);
    assert_status(mf_request_set_text(&request, "labels", "novalue", &error), MF_ERROR_INVALID_FIELD);
    assert_status(mf_request_set_text(&request, "batch_id", "\xFF", &error), MF_ERROR_INVALID_FIELD);
    assert_status(mf_request_set_text(&request, "lora_rr", "8", &error), MF_ERROR_UNKNOWN_FIELD);
    assert_string_equal(error.message, "lora_rr: no such field; did you mean lora_r?");
    mf_request_free(&request);
}

static void structs_filled_in_c_are_checked_too(void **state) {
    (void)state;
    struct mf_request request;
    struct mf_error error;
    assert_status(mf_request_init(&request, &error), MF_OK);
    assert_status(mf_request_validate(&request, &error), MF_ERROR_MISSING_FIELD);
    request.task = strdup("text-generation");
    request.model_name = strdup("m");
    request.dataset = strdup("d");
    assert_status(mf_request_validate(&request, &error), MF_OK);
    request.learning_rate = 0.0 / (request.lora_r == 16 ? 0.0 : 1.0);
    assert_status(mf_request_validate(&request, &error), MF_ERROR_INVALID_FIELD);
    assert_contains(error.message, "learning_rate: a number that is not finite is not in (0, 1]");
    request.learning_rate = 0.1;
    request.batch_id = strdup("\xC3");
    assert_status(mf_request_validate(&request, &error), MF_ERROR_INVALID_FIELD);
    assert_string_equal(error.message, "batch_id: not valid UTF-8");
    mf_request_free(&request);
}

static void the_hash_is_of_the_meaning(void **state) {
    (void)state;
    struct mf_error error;
    struct mf_request request;
    char first[MF_SHA256_TEXT_BYTES], other[MF_SHA256_TEXT_BYTES];
    assert_status(read_with("\"request_id\":\"r\"", &request, &error), MF_OK);
    assert_status(mf_request_hash(&request, first, &error), MF_OK);
    mf_request_free(&request);
    /* stable API: deduplication across versions rests on it */
    assert_string_equal(first, "213198ba21f417117ffb3de0cf5c2cf376e0d990af462feae0a3b45760380e42");
    assert_status(read_with("\"request_id\":\"r\",\"learning_rate\":0.0002,\"lora_r\":16.0,\"use_4bit\":null",
                            &request, &error),
                  MF_OK);
    assert_status(mf_request_hash(&request, other, &error), MF_OK);
    mf_request_free(&request);
    assert_string_equal(first, other);
    assert_status(read_with("\"request_id\":\"r\",\"learning_rate\":0.0003", &request, &error), MF_OK);
    assert_status(mf_request_hash(&request, other, &error), MF_OK);
    mf_request_free(&request);
    assert_string_not_equal(first, other);
}

static void job_ids_are_known_beforehand(void **state) {
    (void)state;
    struct mf_error error;
    char id[MF_UUID_TEXT_BYTES], other[MF_UUID_TEXT_BYTES];
    assert_status(mf_job_id("default", "r1", 1, id, &error), MF_OK);
    assert_string_equal(id, "4a21806d-1746-5247-8486-2978f18f63f1"); /* stable API */
    assert_status(mf_job_id("default", "r1", 2, other, &error), MF_OK);
    assert_string_not_equal(id, other);
    assert_status(mf_job_id("default", "r1/1", 1, other, &error), MF_OK);
    assert_string_not_equal(id, other);
}

static void the_table_is_complete(void **state) {
    (void)state;
    size_t count;
    const struct mf_field_choice *choice = mf_request_choices(&count);
    for (size_t i = 0; i < MF_REQUEST_FIELD_COUNT; i++) {
        const struct mf_field *field = &mf_request_fields()[i];
        size_t length = strlen(field->meaning);
        if (length < 10 || field->meaning[length - 1] != '.')
            fail_msg("%s: its meaning is not a sentence", field->name);
        if (strchr(field->meaning, '|') || strchr(field->meaning, '"'))
            fail_msg("%s: its meaning would break a table or a schema", field->name);
        if (!*field->since || strlen(field->name) > 40)
            fail_msg("%s: since or name", field->name);
        if ((field->kind == MF_KIND_INTEGER || field->kind == MF_KIND_NUMBER ||
             field->kind == MF_KIND_STRING || field->kind == MF_KIND_OPTIONAL_INTEGER ||
             field->kind == MF_KIND_OPTIONAL_NUMBER || field->kind == MF_KIND_STRING_LIST ||
             field->kind == MF_KIND_MAP) &&
            !field->bounded)
            fail_msg("%s has no bounds", field->name);
        if (field->required && field->kind != MF_KIND_STRING)
            fail_msg("%s: only strings can be required", field->name);
        for (const char *alias = field->aliases; *alias;) {
            char name[64];
            size_t n = strcspn(alias, ",");
            assert_true(n > 0 && n < sizeof name);
            memcpy(name, alias, n);
            name[n] = 0;
            if (mf_request_field_find(name) != field)
                fail_msg("%s: its alias %s belongs to another field", field->name, name);
            alias += n + (alias[n] == ',');
        }
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(field->name, mf_request_fields()[j].name);
        /* the default is among the choices and is not refused */
        size_t of_field = 0, is_default = 0;
        for (size_t j = 0; j < count; j++)
            if (choice[j].field == i) {
                of_field++;
                is_default += field->default_text && !choice[j].refusal &&
                              !strcmp(choice[j].value, field->default_text);
            }
        if (of_field && field->default_text && !is_default)
            fail_msg("%s: its default is no choice", field->name);
    }
    for (size_t j = 1; j < count; j++) /* in the order of the fields, so neighbours too */
        assert_true(choice[j].field >= choice[j - 1].field);
}

/* The generated text is what the file holds. */
static void same_as_file(const char *path, enum mf_status (*generate)(char **, struct mf_error *),
                         const char *argument) {
    struct mf_error error;
    char *text, *file;
    assert_status(generate(&text, &error), MF_OK);
    assert_status(mf_file_read(path, 1 << 20, &file, NULL, &error), MF_OK);
    if (strcmp(text, file) != 0)
        fail_msg("%s is stale: build modelforge-fields and run `modelforge-fields %s > %s`", path, argument,
                 path);
    free(text);
    free(file);
}

static void generated_files_are_fresh(void **state) {
    (void)state;
    same_as_file("schemas/FIELDS.md", mf_request_fields_markdown, "markdown");
    same_as_file("schemas/TrainingRequest.avsc", mf_request_avro_schema, "avro");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(three_fields_make_a_request_and_the_rest_has_the_documented_defaults),
        cmocka_unit_test(every_field_survives_the_way_out_and_back),
        cmocka_unit_test(missing_and_unknown_fields_are_named),
        cmocka_unit_test(the_trainers_file_may_carry_run),
        cmocka_unit_test(ranges_are_kept_and_told),
        cmocka_unit_test(names_keep_their_forms),
        cmocka_unit_test(aliases_mean_the_field),
        cmocka_unit_test(choices_are_checked),
        cmocka_unit_test(maps_hold_strings),
        cmocka_unit_test(fields_that_contradict_are_refused),
        cmocka_unit_test(what_comes_later_is_refused_by_name),
        cmocka_unit_test(text_sets_any_field),
        cmocka_unit_test(structs_filled_in_c_are_checked_too),
        cmocka_unit_test(the_hash_is_of_the_meaning),
        cmocka_unit_test(job_ids_are_known_beforehand),
        cmocka_unit_test(the_table_is_complete),
        cmocka_unit_test(generated_files_are_fresh),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

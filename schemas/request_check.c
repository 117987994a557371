/* What a request may say: ranges, choices, forms, fields that contradict each other, refused features. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "schemas/request_private.h"

static const char name_characters[] = "abcdefghijklmnopqrstuvwxyz0123456789_-";
static const char tenant_characters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";

bool mf_tenant_name_valid(const char *name) {
    size_t length = strlen(name);
    return length >= 1 && length <= 64 && strspn(name, tenant_characters) == length;
}

bool mf_provider_name_valid(const char *name) {
    size_t length = strlen(name);
    return length >= 1 && length <= 32 && strspn(name, name_characters) == length;
}

static bool has_control_characters(const char *text, const char *allowed) {
    for (const unsigned char *c = (const unsigned char *)text; *c; c++)
        if ((*c < 0x20 || *c == 0x7F) && !strchr(allowed, *c))
            return true;
    return false;
}

bool mf_request_id_valid(const char *name) {
    size_t length = strlen(name);
    return length >= 1 && length <= 200 && mf_utf8_valid(name, length) && !has_control_characters(name, "");
}

static void append_number(const struct mf_field *field, double number, struct mf_text *text) {
    char digits[MF_NUMBER_TEXT_BYTES];
    if (field->kind == MF_KIND_NUMBER || field->kind == MF_KIND_OPTIONAL_NUMBER)
        mf_text_puts(text, mf_number_format(number, digits));
    else
        mf_text_printf(text, "%lld", (long long)number);
}

void mf_field_range_text(const struct mf_field *field, struct mf_text *text) {
    if (!field->bounded)
        return;
    mf_text_puts(text, field->minimum_open ? "(" : "[");
    append_number(field, field->minimum, text);
    mf_text_puts(text, ", ");
    append_number(field, field->maximum, text);
    mf_text_puts(text, field->maximum_open ? ")" : "]");
}

static bool in_range(const struct mf_field *field, double number) {
    if (!isfinite(number))
        return false;
    if (!field->bounded)
        return true;
    if (number < field->minimum || number > field->maximum)
        return false;
    /* training computes in 32-bit floats: what rounds to an open end is that end (a beta2 of 1 gives NaN) */
    const double rounded = (double)(float)number;
    return !(field->minimum_open && rounded <= field->minimum) &&
           !(field->maximum_open && rounded >= field->maximum);
}

static enum mf_status check_number(const struct mf_field *field, double number, struct mf_error *error) {
    if (in_range(field, number))
        return MF_OK;
    struct mf_text value = {0}, range = {0}, hint = {0};
    if (isfinite(number))
        append_number(field, number, &value);
    else
        mf_text_puts(&value, "a number that is not finite");
    mf_field_range_text(field, &range);
    if (field->kind == MF_KIND_INTEGER || field->kind == MF_KIND_NUMBER) {
        mf_text_puts(&hint, "; the default is ");
        append_number(field, field->default_number, &hint);
    }
    mf_error_set(error, MF_ERROR_INVALID_FIELD, "%s: %s is not in %s%s", field->name, mf_text_string(&value),
                 mf_text_string(&range), mf_text_string(&hint));
    mf_text_free(&value);
    mf_text_free(&range);
    mf_text_free(&hint);
    return MF_ERROR_INVALID_FIELD;
}

/* An unknown value's error names those that work. */
static enum mf_status check_choice(const struct mf_field *field, const char *value, struct mf_error *error) {
    size_t count;
    const struct mf_field_choice *choice = mf_field_choices(field, &count);
    struct mf_text known = {0};
    for (size_t i = 0; i < count; i++) {
        if (!strcmp(choice[i].value, value)) {
            mf_text_free(&known);
            return MF_OK;
        }
        if (!choice[i].refusal)
            mf_text_printf(&known, "%s%s", *mf_text_string(&known) ? ", " : "", choice[i].value);
    }
    if (count)
        mf_error_set(error, MF_ERROR_INVALID_FIELD, "%s: \"%.100s\" is not one of %s", field->name, value,
                     mf_text_string(&known));
    mf_text_free(&known);
    return count ? MF_ERROR_INVALID_FIELD : MF_OK;
}

/* "auto", "balanced", "cuda:N". */
static bool device_map_valid(const char *value) {
    if (!strcmp(value, "auto") || !strcmp(value, "balanced"))
        return true;
    size_t digits = strncmp(value, "cuda:", 5) ? 0 : strspn(value + 5, "0123456789");
    return digits >= 1 && digits <= 3 && !value[5 + digits];
}

/* Forms that a length and choices do not say. */
static enum mf_status check_form(enum mf_request_field field, const char *value, struct mf_error *error) {
    const char *name = mf_request_fields()[field].name;
    switch (field) {
    case MF_REQUEST_tenant:
        if (!mf_tenant_name_valid(value))
            return mf_error_set(error, MF_ERROR_INVALID_FIELD,
                                "%s: \"%.100s\" may hold only letters, digits, '.', '_' and '-', at most 64",
                                name, value);
        return MF_OK;
    case MF_REQUEST_provider:
        if (!mf_provider_name_valid(value))
            return mf_error_set(error, MF_ERROR_INVALID_FIELD,
                                "%s: \"%.100s\" may hold only small letters, digits, '_' and '-', at most 32",
                                name, value);
        return MF_OK;
    case MF_REQUEST_device_map:
        if (!device_map_valid(value))
            return mf_error_set(error, MF_ERROR_INVALID_FIELD,
                                "%s: \"%.100s\" is neither auto, balanced nor cuda:N", name, value);
        return MF_OK;
    default:
        return MF_OK;
    }
}

/* A string field, or an item of a list. */
static enum mf_status check_string(const struct mf_field *field, const char *value, double minimum,
                                   double maximum, struct mf_error *error) {
    enum mf_request_field index = (enum mf_request_field)(field - mf_request_fields());
    size_t length = strlen(value);
    if ((double)length < minimum || (double)length > maximum)
        return mf_error_set(error, MF_ERROR_INVALID_FIELD, "%s: %zu bytes long, %g to %g are allowed",
                            field->name, length, minimum, maximum);
    if (!mf_utf8_valid(value, length))
        return mf_error_set(error, MF_ERROR_INVALID_FIELD, "%s: not valid UTF-8", field->name);
    if (has_control_characters(value, index == MF_REQUEST_chat_template ? "\t\r\n" : ""))
        return mf_error_set(error, MF_ERROR_INVALID_FIELD, "%s: holds control characters", field->name);
    enum mf_status status = check_form(index, value, error);
    return status ? status : check_choice(field, value, error);
}

static enum mf_status check_count(const struct mf_field *field, size_t count, struct mf_error *error) {
    if ((double)count >= field->minimum && (double)count <= field->maximum)
        return MF_OK;
    return mf_error_set(error, MF_ERROR_INVALID_FIELD, "%s: %zu items, %g to %g are allowed", field->name,
                        count, field->minimum, field->maximum);
}

static enum mf_status check_list(const struct mf_field *field, const struct mf_string_list *list,
                                 struct mf_error *error) {
    enum mf_status status = check_count(field, list->count, error);
    for (size_t i = 0; !status && i < list->count; i++) {
        status = check_string(field, list->item[i], 1, MF_LIST_ITEM_BYTES, error);
        for (size_t j = 0; !status && j < i; j++)
            if (!strcmp(list->item[i], list->item[j]))
                status = mf_error_set(error, MF_ERROR_INVALID_FIELD, "%s: \"%s\" is listed twice",
                                      field->name, list->item[i]);
    }
    return status;
}

static enum mf_status check_map(const struct mf_field *field, const json_t *map, struct mf_error *error) {
    const char *key;
    json_t *value;
    enum mf_status status = check_count(field, json_object_size(map), error);
    if (status)
        return status;
    json_object_foreach((json_t *)map, key, value) {
        if (!*key || strlen(key) > MF_MAP_KEY_BYTES || has_control_characters(key, ""))
            return mf_error_set(
                error, MF_ERROR_INVALID_FIELD,
                "%s: a name in it is %zu bytes long or holds control characters; 1 to %d are allowed",
                field->name, strlen(key), MF_MAP_KEY_BYTES);
        if (!json_is_string(value))
            return mf_error_set(error, MF_ERROR_INVALID_FIELD, "%s: \"%s\": expected a string, found %s",
                                field->name, key, mf_json_type_name(value));
        if (json_string_length(value) > MF_MAP_VALUE_BYTES)
            return mf_error_set(error, MF_ERROR_INVALID_FIELD,
                                "%s: \"%s\": %zu bytes long, at most %d are allowed", field->name, key,
                                json_string_length(value), MF_MAP_VALUE_BYTES);
    }
    return MF_OK;
}

enum mf_status mf_field_check(const struct mf_field *field, const struct mf_request *request,
                              struct mf_error *error) {
    const void *value = mf_field_value(field, request);
    switch (field->kind) {
    case MF_KIND_STRING: {
        const char *string = *(char *const *)value;
        return string ? check_string(field, string, field->minimum, field->maximum, error) : MF_OK;
    }
    case MF_KIND_INTEGER:
        return check_number(field, (double)*(const int64_t *)value, error);
    case MF_KIND_NUMBER:
        return check_number(field, *(const double *)value, error);
    case MF_KIND_OPTIONAL_INTEGER: {
        const struct mf_optional_integer *integer = value;
        return integer->set ? check_number(field, (double)integer->value, error) : MF_OK;
    }
    case MF_KIND_OPTIONAL_NUMBER: {
        const struct mf_optional_number *number = value;
        return number->set ? check_number(field, number->value, error) : MF_OK;
    }
    case MF_KIND_STRING_LIST:
        return check_list(field, value, error);
    case MF_KIND_MAP:
        return check_map(field, *(json_t *const *)value, error);
    case MF_KIND_TIMESTAMP: {
        /* the years 1970 to 9999, which PostgreSQL and RFC 3339 both can write */
        const struct mf_optional_integer *instant = value;
        if (instant->set && (instant->value < 0 || instant->value > 253402300799999))
            return mf_error_set(error, MF_ERROR_INVALID_FIELD, "%s: not between the years 1970 and 9999",
                                field->name);
        return MF_OK;
    }
    case MF_KIND_BOOLEAN:
    case MF_KIND_OPTIONAL_BOOLEAN:
        return MF_OK;
    }
    return MF_OK;
}

static bool is_text(const char *value, const char *expected) {
    return value && !strcmp(value, expected);
}

static bool is_true(struct mf_optional_boolean value) {
    return value.set && value.value;
}

static enum mf_status conflict(struct mf_error *error, const char *message) {
    return mf_error_set(error, MF_ERROR_CONFLICTING_FIELDS, "%s", message);
}

/* Settings of 4-bit weights belong to 4-bit weights. */
static enum mf_status check_four_bits(const struct mf_request *request, bool four_bits,
                                      struct mf_error *error) {
    const char *compute = request->bnb_4bit_compute_dtype;
    if (!four_bits && (request->use_nested_quant || compute || is_text(request->bnb_4bit_quant_type, "fp4")))
        return conflict(
            error, "use_4bit and use_nested_quant, bnb_4bit_compute_dtype, bnb_4bit_quant_type: they are "
                   "settings of 4-bit weights; set use_4bit or strategy qlora, or leave them out");
    if (compute && ((is_true(request->bf16) && !is_text(compute, "bfloat16")) ||
                    (request->bf16.set && !request->bf16.value && is_text(compute, "bfloat16"))))
        return conflict(error,
                        "bf16 and bnb_4bit_compute_dtype: they name two types for one computation; set one "
                        "of them");
    return MF_OK;
}

static enum mf_status check_precision(const struct mf_request *request, struct mf_error *error) {
    bool full = mf_request_trains_all(request), qlora = is_text(request->strategy, "qlora");
    if (request->fp16 && is_true(request->bf16))
        return conflict(error, "fp16 and bf16: one computation cannot be in both; set only one");
    if (qlora && request->use_4bit.set && !request->use_4bit.value)
        return conflict(
            error,
            "strategy and use_4bit: qlora is training on 4-bit weights; leave use_4bit out, or use sft");
    if (request->use_8bit && (is_true(request->use_4bit) || qlora))
        return conflict(error, "use_8bit and use_4bit: weights have one width; set only one");
    if (full && (qlora || is_true(request->use_4bit) || request->use_8bit))
        return conflict(
            error,
            "finetuning and quantised weights: full trains every weight, which needs them whole; use lora");
    return check_four_bits(request, qlora || is_true(request->use_4bit), error);
}

/* Numbers of AdamW belong to AdamW, a warm-up to a schedule that has one. */
static enum mf_status check_optimizer(const struct mf_request *request, struct mf_error *error) {
    const enum mf_request_field numbers[] = {MF_REQUEST_adam_beta1, MF_REQUEST_adam_beta2,
                                             MF_REQUEST_adam_epsilon};
    for (size_t i = 0; is_text(request->optim, "sgd") && i < sizeof numbers / sizeof *numbers; i++)
        if (!mf_request_has_default(request, numbers[i]))
            return conflict(error,
                            "optim and adam_beta1, adam_beta2, adam_epsilon: sgd has no moments; leave "
                            "them out, or use adamw_torch");
    if (is_text(request->lr_scheduler_type, "constant") &&
        (request->warmup_steps > 0 ||
         (request->warmup_ratio > 0 && !mf_request_has_default(request, MF_REQUEST_warmup_ratio))))
        return conflict(error,
                        "lr_scheduler_type and warmup_steps, warmup_ratio: constant has no warm-up; use "
                        "constant_with_warmup, or leave them out");
    return MF_OK;
}

/* Settings of adapters, where there are none. */
static enum mf_status check_finetuning(const struct mf_request *request, struct mf_error *error) {
    const enum mf_request_field adapters[] = {MF_REQUEST_lora_r,
                                              MF_REQUEST_lora_alpha,
                                              MF_REQUEST_lora_dropout,
                                              MF_REQUEST_target_modules,
                                              MF_REQUEST_use_rslora,
                                              MF_REQUEST_modules_to_save,
                                              MF_REQUEST_adapter_name_or_path};
    for (size_t i = 0; mf_request_trains_all(request) && i < sizeof adapters / sizeof *adapters; i++)
        if (!mf_request_has_default(request, adapters[i]))
            return mf_error_set(error, MF_ERROR_CONFLICTING_FIELDS,
                                "finetuning and %s: full trains every weight and has no adapters; leave %s "
                                "out, or use lora",
                                mf_request_fields()[adapters[i]].name, mf_request_fields()[adapters[i]].name);
    return MF_OK;
}

static enum mf_status check_together(const struct mf_request *request, struct mf_error *error) {
    bool cpu = is_text(request->device, "cpu");
    if (request->max_steps == 0)
        return mf_error_set(error, MF_ERROR_INVALID_FIELD,
                            "max_steps: 0 trains nothing; use -1 for no limit, or 1 and more");
    if (request->deadline.set && request->run_at.set && request->deadline.value <= request->run_at.value)
        return conflict(error, "deadline and run_at: the deadline must be later than run_at");
    if (cpu && request->gpus > 1)
        return conflict(error,
                        "device and gpus: a job on cpu takes no GPUs; leave gpus out, or use device auto");
    if (!strcmp(request->device_map, "balanced"))
        return mf_error_set(
            error, MF_ERROR_UNSUPPORTED_FIELD,
            "device_map: balanced is refused by this version: a model is not shared among GPUs "
            "yet; use auto or cuda:N");
    if (cpu && request->min_gpu_memory_gib.set)
        return conflict(error, "device and min_gpu_memory_gib: a job on cpu takes no GPU; leave "
                               "min_gpu_memory_gib out, or use device auto");
    if (cpu && !strncmp(request->device_map, "cuda", 4))
        return conflict(error,
                        "device and device_map: a job on cpu has no cuda device; leave device_map at auto");
    if (request->chat_template && !request->use_chat_template)
        return conflict(
            error,
            "chat_template and use_chat_template: the template would not be used; set use_chat_template "
            "to true");
    for (size_t i = 0; request->target_modules.count > 1 && i < request->target_modules.count; i++)
        if (!strcmp(request->target_modules.item[i], "all-linear"))
            return mf_error_set(error, MF_ERROR_INVALID_FIELD,
                                "target_modules: all-linear names them all; leave the others out");
    if ((request->load_best_model_at_end || request->early_stopping_patience.set) &&
        request->eval_split == 0 && !request->validation_dataset)
        return conflict(
            error,
            "eval_split and load_best_model_at_end, early_stopping_patience: without rows for evaluation "
            "nothing says what is best; set eval_split above 0 or give a validation_dataset");
    if (request->validation_dataset && request->eval_split != 0 &&
        !mf_request_has_default(request, MF_REQUEST_eval_split))
        return conflict(error,
                        "validation_dataset and eval_split: rows for evaluation come from one of them; "
                        "leave eval_split out");
    if (request->packing && !request->max_seq_length.set)
        return conflict(error, "packing: how long a pack may be is not said; set max_seq_length");
    if (request->metric_for_best_model && !request->load_best_model_at_end &&
        !request->early_stopping_patience.set)
        return conflict(error,
                        "metric_for_best_model: nothing asks what is best; set load_best_model_at_end or "
                        "early_stopping_patience");
    enum mf_status status = check_finetuning(request, error);
    if (status == MF_OK)
        status = check_optimizer(request, error);
    return status == MF_OK ? check_precision(request, error) : status;
}

/* Whether the value asks for the feature behind a refusal. */
static bool asks_for(const struct mf_field *field, const struct mf_request *request) {
    if (field->kind == MF_KIND_OPTIONAL_BOOLEAN)
        return is_true(*(const struct mf_optional_boolean *)mf_field_value(field, request));
    return !mf_field_is_default(field, request);
}

static enum mf_status refuse(const struct mf_field *field, const char *value, const char *refusal,
                             struct mf_error *error) {
    return mf_error_set(error, MF_ERROR_UNSUPPORTED_FIELD, "%s: %s is refused by this version: %s",
                        field->name, value, refusal);
}

static enum mf_status check_choice_refusal(const struct mf_field *field, const char *value,
                                           struct mf_error *error) {
    size_t count;
    const struct mf_field_choice *choice = mf_field_choices(field, &count);
    for (size_t i = 0; i < count; i++)
        if (choice[i].refusal && !strcmp(choice[i].value, value))
            return refuse(field, value, choice[i].refusal, error);
    return MF_OK;
}

static enum mf_status check_refusal(const struct mf_field *field, const struct mf_request *request,
                                    struct mf_error *error) {
    enum mf_status status = MF_OK;
    if (field->refusal && asks_for(field, request)) {
        char excerpt[80];
        json_t *value = mf_field_to_json(field, request);
        status = refuse(field, mf_json_excerpt(value, excerpt, sizeof excerpt), field->refusal, error);
        json_decref(value);
    } else if (field->kind == MF_KIND_STRING) {
        const char *string = *(char *const *)mf_field_value(field, request);
        if (string)
            status = check_choice_refusal(field, string, error);
    } else if (field->kind == MF_KIND_STRING_LIST) {
        const struct mf_string_list *list = mf_field_value(field, request);
        for (size_t i = 0; !status && i < list->count; i++)
            status = check_choice_refusal(field, list->item[i], error);
    }
    return status;
}

enum mf_status mf_request_validate(const struct mf_request *request, struct mf_error *error) {
    const struct mf_field *fields = mf_request_fields();
    enum mf_status status = MF_OK;
    for (size_t i = 0; !status && i < MF_REQUEST_FIELD_COUNT; i++) {
        const struct mf_field *field = &fields[i];
        if (field->kind == MF_KIND_STRING && (field->required || field->default_text) &&
            !*(char *const *)mf_field_value(field, request))
            return mf_error_set(error, MF_ERROR_MISSING_FIELD, "%s: missing; %s", field->name,
                                field->meaning);
        status = mf_field_check(field, request, error);
    }
    if (!status)
        status = check_together(request, error);
    for (size_t i = 0; !status && i < MF_REQUEST_FIELD_COUNT; i++)
        status = check_refusal(&fields[i], request, error);
    return status;
}

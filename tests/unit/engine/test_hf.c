/*
 * Hugging Face folders: logits equal to the reference implementation's for
 * small models of every family (tests/golden/engine/hf.jsonl, made by
 * tests/tools/hf_golden.py), and refusals that name file, field and tensor.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <dirent.h>
#include <fcntl.h>
#include <cmocka.h>
#include <cjson/cJSON.h>

#include "tests/unit/engine/tiny_hf.h"
#include "worker/engine/eng.h"

#define GOLDEN  "tests/golden/engine/hf.jsonl"

static char    dir[64];
static cJSON  *cases[32];
static int     n_cases;


static cJSON *
find_case(const char *name)
{
    int  i;

    for (i = 0; i < n_cases; i++) {
        if (strcmp(cJSON_GetObjectItem(cases[i], "name")->valuestring, name)
            == 0)
        {
            return cases[i];
        }
    }
    fail_msg("no case \"%s\"", name);

    return NULL;
}


/* ---- logits ------------------------------------------------------------- */

static double
compare(const cJSON *c, const float **logits)
{
    int           i, j;
    double        d, worst = 0;
    const cJSON  *at = cJSON_GetObjectItem(c, "at"), *want;

    for (i = 0; i < cJSON_GetArraySize(at); i++) {
        want = cJSON_GetArrayItem(cJSON_GetObjectItem(c, "logits"), i);
        for (j = 0; j < cJSON_GetArraySize(want); j++) {
            d = cJSON_GetArrayItem(want, j)->valuedouble
                - logits[cJSON_GetArrayItem(at, i)->valueint][j];
            worst = fabs(d) > worst ? fabs(d) : worst;
        }
    }

    return worst;
}


static double
run(const cJSON *c, const eng_model_opts_t *mo)
{
    int             i, n;
    eng_t           e;
    double          worst;
    uint32_t        seq;
    eng_err_t       err;
    eng_tok_t       tok[64];
    const float    *logits[64];
    eng_model_t    *m;
    const cJSON    *ids = cJSON_GetObjectItem(c, "ids");
    eng_ctx_opts_t  co = ENG_CTX_OPTS_INIT;

    co.max_seqs = 1;
    co.max_batch_tokens = 64;
    co.max_logits = 64;
    if (eng_model_open(dir, mo, &m, &err) != 0
        || eng_create(m, &co, &e, &err) != 0)
    {
        fail_msg("%s: %s", cJSON_GetObjectItem(c, "name")->valuestring,
                 err.text);
    }
    n = cJSON_GetArraySize(ids);
    assert_int_equal(eng_seq_open(&e, &seq), 0);
    assert_int_equal(eng_seq_reserve(&e, seq, (uint32_t) n), 0);
    for (i = 0; i < n; i++) {
        tok[i] = (eng_tok_t) {
            (uint32_t) cJSON_GetArrayItem(ids, i)->valueint, seq,
            (uint32_t) i, 1
        };
    }
    assert_int_equal(eng_step(&e, tok, (uint32_t) n, logits), 0);
    worst = compare(c, logits);
    eng_destroy(&e);
    eng_model_close(m);

    return worst;
}


/* Keys and values are kept as f16: that is the only rounding. */
static void
test_golden(void **state)
{
    int               i;
    double            worst;
    eng_model_opts_t  mo = ENG_MODEL_OPTS_INIT;

    (void) state;
    assert_int_equal(n_cases, 14);
    for (i = 0; i < n_cases; i++) {
        hf_write(dir, cases[i], NULL, NULL);
        worst = run(cases[i], &mo);
        print_message("%s: %.6f\n",
                      cJSON_GetObjectItem(cases[i], "name")->valuestring,
                      worst);
        assert_true(worst < 2e-3);
        hf_remove(dir);
    }
}


/* ---- refusals ----------------------------------------------------------- */

static void
check(int code, const char *text)
{
    int               rc;
    eng_err_t         err = { 0, "" };
    eng_info_t        info;
    eng_ctx_opts_t    co = ENG_CTX_OPTS_INIT;
    eng_model_opts_t  mo = ENG_MODEL_OPTS_INIT;

    rc = eng_model_check(dir, &mo, &co, &info, &err);
    if (rc != code || strstr(err.text, text) == NULL) {
        fail_msg("%d \"%s\", expected %d \"%s\"", rc, err.text, code, text);
    }
    hf_remove(dir);
}


/* The case with one field of its config set to other JSON (NULL: removed). */
static void
refuse_config(const char *name, const char *field, const char *json,
    int code, const char *text)
{
    cJSON  *c = cJSON_Duplicate(find_case(name), 1);
    cJSON  *config = cJSON_GetObjectItem(c, "config");

    cJSON_DeleteItemFromObject(config, field);
    if (json != NULL) {
        cJSON_AddItemToObject(config, field, cJSON_Parse(json));
    }
    hf_write(dir, c, NULL, NULL);
    cJSON_Delete(c);
    check(code, text);
}


static void
refuse_tensor(const char *name, const char *tensor, const char *as,
    int code, const char *text)
{
    hf_write(dir, find_case(name), tensor, as);
    check(code, text);
}


static void
test_config(void **state)
{
    (void) state;
    refuse_config("qwen2", "model_type", NULL, ENG_EFORMAT,
                  "/config.json: \"model_type\" is missing");
    refuse_config("qwen2", "model_type", "\"mamba\"", ENG_EUNSUP,
                  "/config.json: \"model_type\" \"mamba\" is not supported");
    refuse_config("qwen2", "model_type", "7", ENG_EFORMAT,
                  "\"model_type\" must be a string");
    refuse_config("qwen2", "hidden_size", NULL, ENG_EFORMAT,
                  "/config.json: \"hidden_size\" is missing");
    refuse_config("gemma3 with a tower", "text_config", "{}", ENG_EFORMAT,
                  "\"text_config.num_hidden_layers\" is missing");
    refuse_config("qwen2", "hidden_size", "65", ENG_EUNSUP,
                  "embedding length 65");
    refuse_config("qwen2", "hidden_size", "-64", ENG_ELIMIT,
                  "\"hidden_size\" is -64");
    refuse_config("qwen2", "num_hidden_layers", "100000", ENG_ELIMIT,
                  "(\"num_hidden_layers\" of config.json) is 100000, allowed "
                  "are 1 to 1024");
    refuse_config("qwen2", "hidden_act", "\"relu\"", ENG_EUNSUP,
                  "\"hidden_act\" is relu; silu supported");
    refuse_config("qwen2", "quantization_config",
                  "{\"quant_method\":\"gptq\"}", ENG_EUNSUP,
                  "\"quantization_config\" (\"gptq\")");
    refuse_config("qwen2", "rope_scaling", "{\"rope_type\":\"dynamic\"}",
                  ENG_EUNSUP, "\"rope_scaling\" is dynamic");
    refuse_config("llama3 scaling", "rope_scaling",
                  "{\"rope_type\":\"llama3\",\"factor\":0}", ENG_EUNSUP,
                  "\"rope_scaling\" is llama3 with these factors");
    refuse_config("llama", "partial_rotary_factor", "0.5", ENG_EUNSUP,
                  "\"partial_rotary_factor\" is not 1");
    refuse_config("gemma3", "layer_types", "[\"full_attention\"]",
                  ENG_EUNSUP, "\"layer_types\" gives layer 0 full_attention");
    refuse_config("smollm3", "no_rope_layers", "[1,0,1,1]", ENG_EUNSUP,
                  "\"no_rope_layers\" gives layer 1 no rotation");
    refuse_config("qwen2", "eos_token_id", "64", ENG_EFORMAT,
                  "(\"eos_token_id\" of config.json) must be a token id below "
                  "64");
}


/* Sizes that contradict the tensors, and tensors that contradict the names. */
static void
test_tensors(void **state)
{
    (void) state;
    refuse_config("qwen2", "vocab_size", "65", ENG_EFORMAT,
                  "/config.json: \"vocab_size\" is 65, but tensor "
                  "\"model.embed_tokens.weight\" has 64 rows");
    refuse_config("qwen2", "intermediate_size", "128", ENG_EFORMAT,
                  "tensor \"model.layers.0.mlp.gate_proj.weight\" is 64 x 96");
    refuse_config("qwen2", "num_hidden_layers", "4", ENG_EFORMAT,
                  "tensor \"model.layers.3.input_layernorm.weight\" is "
                  "missing");
    refuse_config("qwen2", "num_hidden_layers", "2", ENG_EUNSUP,
                  "tensor \"model.layers.2.");
    refuse_config("llama", "head_dim", "20", ENG_EFORMAT,
                  "has rows that are no whole heads");
    refuse_config("qwen2", "tie_word_embeddings", "false", ENG_EFORMAT,
                  "tensor \"lm_head.weight\" is missing, and "
                  "\"tie_word_embeddings\" is false");

    refuse_tensor("qwen3", "model.layers.1.mlp.up_proj.weight", NULL,
                  ENG_EFORMAT, "tensor \"model.layers.1.mlp.up_proj.weight\" "
                  "is missing");
    refuse_tensor("qwen3", "model.norm.weight", NULL, ENG_EFORMAT,
                  "tensor \"model.norm.weight\" is missing");
    refuse_tensor("qwen3", "model.embed_tokens.weight", NULL, ENG_EFORMAT,
                  "tensor \"model.embed_tokens.weight\" is missing");
    refuse_tensor("qwen3", "model.norm.weight", "model.narm.weight",
                  ENG_EUNSUP, "tensor \"model.narm.weight\" has no place in a "
                  "model of the type \"qwen3\"");
    refuse_tensor("llama", "model.layers.1.mlp.up_proj.weight",
                  "model.layers.1.self_attn.q_norm.weight", ENG_EFORMAT,
                  "tensor \"model.layers.1.mlp.up_proj.weight\" is missing");
    refuse_tensor("qwen3", "model.norm.weight", "layers.0.mlp.up_proj.weight",
                  ENG_EFORMAT, "is there a second time under another name");
    refuse_tensor("qwen3", "model.norm.weight",
                  "model.layers.07.mlp.up_proj.weight", ENG_EUNSUP,
                  "has no place");
}


/* Experts and long factors: counts, shapes and places that do not fit. */
static void
test_experts(void **state)
{
    (void) state;
    refuse_config("mixtral", "num_experts_per_tok", "5", ENG_ELIMIT,
                  "(\"num_experts_per_tok\" of config.json) is 5, allowed are "
                  "1 to 4");
    refuse_config("mixtral", "num_local_experts", "3", ENG_EFORMAT,
                  "tensor \"model.layers.0.block_sparse_moe.gate.weight\"");
    refuse_config("qwen3_moe", "num_experts", "4000000000", ENG_ELIMIT,
                  "(\"num_experts\" of config.json) is 4000000000");
    refuse_config("qwen2_moe", "moe_intermediate_size", "64", ENG_EFORMAT,
                  "tensor \"model.layers.0.mlp.experts.*.gate_proj.weight\" "
                  "is 64 x 32 x 6");
    refuse_config("qwen2_moe", "decoder_sparse_step", "2", ENG_EUNSUP,
                  "\"decoder_sparse_step\" is not 1");
    refuse_config("qwen3_moe", "mlp_only_layers", "[1]", ENG_EUNSUP,
                  "\"mlp_only_layers\" is not empty");
    refuse_tensor("mixtral", "model.layers.1.block_sparse_moe.experts.3.w1"
                  ".weight", NULL, ENG_EFORMAT, "is 64 x 96 x 3");
    refuse_tensor("mixtral", "model.layers.1.block_sparse_moe.experts.2.w1"
                  ".weight", NULL, ENG_EFORMAT, "its number is not the next");
    refuse_tensor("mixtral", "model.layers.1.post_attention_layernorm.weight",
                  "model.layers.1.block_sparse_moe.experts.4.w1.weight",
                  ENG_EFORMAT, "has another shape or type");

    refuse_tensor("phi3", "model.layers.0.mlp.gate_up_proj.weight", NULL,
                  ENG_EFORMAT, "tensor "
                  "\"model.layers.0.mlp.gate_up_proj.weight\" is missing");
    refuse_config("phi3 longrope", "original_max_position_embeddings", NULL,
                  ENG_EFORMAT, "\"original_max_position_embeddings\" is "
                  "missing");
    refuse_config("phi3 longrope", "rope_scaling", "{\"type\":\"longrope\","
                  "\"short_factor\":[1,1,1,1,1,1,1],\"long_factor\":[1]}",
                  ENG_EUNSUP, "\"rope_scaling.short_factor\" is 7 numbers, "
                  "wanted are 8");
    refuse_config("phi3 longrope", "rope_scaling", "{\"type\":\"longrope\","
                  "\"short_factor\":[1,1,1,1,1,1,1,1,1]}", ENG_EUNSUP,
                  "\"rope_scaling.short_factor\" is too long");
    refuse_config("phi3 longrope", "rope_scaling", "{\"type\":\"longrope\","
                  "\"short_factor\":[1,0]}", ENG_EUNSUP, "not positive");
}


static void
test_files(void **state)
{
    (void) state;
    hf_write(dir, find_case("qwen2"), NULL, NULL);
    hf_unlink(dir, "config.json");
    check(ENG_EIO, "/config.json: cannot open: No such file");
    hf_write(dir, find_case("qwen2"), NULL, NULL);
    hf_unlink(dir, "model.safetensors");
    check(ENG_EIO, "neither \"model.safetensors\" nor");
    hf_write(dir, find_case("llama"), NULL, NULL);
    hf_unlink(dir, "model-2.safetensors");
    check(ENG_EIO, "/model-2.safetensors: cannot open");
    hf_write(dir, find_case("llama"), NULL, NULL);
    hf_put(dir, "generation_config.json", "{\"eos_token_id\":", 16);
    check(ENG_EFORMAT, "/generation_config.json: ");
    hf_write(dir, find_case("llama"), NULL, NULL);
    hf_put(dir, "generation_config.json", "{\"eos_token_id\":[99]}", 21);
    check(ENG_EFORMAT, "must be a token id below 64");
}


/* A folder's image fits that folder only: a weight changed, a file renewed. */
static void
test_cache(void **state)
{
    int               fd;
    char              cache[64] = "/tmp/infer-cache-XXXXXX", path[128];
    eng_err_t         err;
    eng_model_t      *m;
    eng_model_opts_t  mo = ENG_MODEL_OPTS_INIT;

    (void) state;
    assert_non_null(mkdtemp(cache));
    mo.cache_dir = cache;
    hf_write(dir, find_case("qwen2"), NULL, NULL);
    assert_int_equal(eng_model_open(dir, &mo, &m, &err), 0);
    assert_string_equal(eng_model_origin(m), "packed from the model file");
    assert_string_equal(eng_model_info(m)->arch, "qwen2");
    assert_int_equal(eng_model_info(m)->eos_id, 2);
    eng_model_close(m);
    assert_int_equal(eng_model_open(dir, &mo, &m, &err), 0);
    assert_string_equal(eng_model_origin(m), "cache file");
    eng_model_close(m);

    snprintf(path, sizeof(path), "%s/model.safetensors", dir);
    fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, "\1", 1, 20000), 1);
    close(fd);
    assert_int_equal(eng_model_open(dir, &mo, &m, &err), 0);
    assert_string_equal(eng_model_origin(m), "packed from the model file");
    eng_model_close(m);
    hf_remove(dir);
    hf_remove(cache);
}


static int
load_cases(void)
{
    char  *line = NULL;
    FILE  *f = fopen(GOLDEN, "r");
    size_t cap = 0;

    if (f == NULL) {
        return -1;
    }
    while (n_cases < 32 && getline(&line, &cap, f) > 0) {
        cases[n_cases] = cJSON_Parse(line);
        if (cases[n_cases++] == NULL) {
            return -1;
        }
    }
    free(line);

    return fclose(f);
}


int
main(void)
{
    int                      rc;
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_config),
        cmocka_unit_test(test_tensors),
        cmocka_unit_test(test_experts),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_cache),
    };

    memcpy(dir, "/tmp/infer-hf-XXXXXX", 21);
    if (mkdtemp(dir) == NULL || rmdir(dir) != 0 || load_cases() != 0) {
        fprintf(stderr, "%s cannot be read\n", GOLDEN);
        return 1;
    }
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    while (n_cases > 0) {
        cJSON_Delete(cases[--n_cases]);
    }

    return rc;
}

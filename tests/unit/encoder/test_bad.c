/*
 * Folders that are not what they should be: every error names what is wrong.
 */
#include "tests/unit/encoder/tiny_st.h"

#define GOLDEN  "tests/golden/encoder/families.json"

#define MODULE(type, path) \
    "{\"idx\":0,\"name\":\"0\",\"path\":\"" path "\",\"type\":" \
    "\"sentence_transformers.models." type "\"}"
#define TWO        MODULE("Normalize", "") "," MODULE("Normalize", "")
#define FOUR       TWO "," TWO
#define NUMBER(x)  cJSON_CreateNumber(x)
#define TEXT(x)    cJSON_CreateString(x)

static cJSON  *golden;


static const cJSON *
model_of(const char *name)
{
    const cJSON  *m;

    cJSON_ArrayForEach(m, golden) {
        if (strcmp(cJSON_GetObjectItem(m, "name")->valuestring, name) == 0) {
            return m;
        }
    }
    fail_msg("no model %s", name);

    return NULL;
}


static void
refuse(const char *path, int code, const char *what)
{
    int                rc;
    eng_err_t          err = { 0, "" };
    enc_info_t         info;
    enc_opts_t         co = ENC_OPTS_INIT;
    enc_model_opts_t   mo = ENC_MODEL_OPTS_INIT;

    rc = enc_model_check(path, &mo, &co, &info, &err);
    if (rc != code || strstr(err.text, what) == NULL) {
        fail_msg("wanted %d with \"%s\", got %d \"%s\"", code, what, rc,
                 err.text);
    }
}


/* A model whose config has one number or text changed (NULL: removed). */
static void
with_config(const char *name, const char *key, cJSON *value, int code,
    const char *what)
{
    char    path[TINY_PATH];
    cJSON  *m = cJSON_Duplicate(model_of(name), 1);
    cJSON  *config = cJSON_GetObjectItem(m, "config");

    cJSON_DeleteItemFromObject(config, key);
    if (value != NULL) {
        cJSON_AddItemToObject(config, key, value);
    }
    tiny_folder(path, m, NULL, NULL);
    refuse(path, code, what);
    tiny_drop(path);
    cJSON_Delete(m);
}


static void
test_config(void **state)
{
    (void) state;
    with_config("bert", "hidden_size", NULL, ENG_EFORMAT, "hidden_size");
    with_config("bert", "hidden_size", NUMBER(0), ENG_ELIMIT,
                "hidden_size");
    with_config("bert", "hidden_size", NUMBER(1e12), ENG_ELIMIT,
                "hidden_size");
    with_config("bert", "hidden_size", NUMBER(65), ENG_EFORMAT,
                "multiple");
    with_config("bert", "hidden_size", TEXT("64"), ENG_EFORMAT,
                "hidden_size");
    with_config("bert", "num_hidden_layers", NUMBER(4), ENG_EFORMAT,
                "encoder.layer.3");
    with_config("bert", "num_hidden_layers", NUMBER(1000000), ENG_ELIMIT,
                "num_hidden_layers");
    with_config("bert", "num_attention_heads", NUMBER(64), ENG_EUNSUP,
                "heads of 1");
    with_config("bert", "intermediate_size", NUMBER(128), ENG_EFORMAT,
                "intermediate.dense.weight is 96 x 64");
    with_config("bert", "vocab_size", NUMBER(97), ENG_EFORMAT,
                "word_embeddings");
    with_config("bert", "hidden_act", TEXT("mish"), ENG_EUNSUP, "mish");
    with_config("bert", "model_type", TEXT("blorp"), ENG_EUNSUP, "blorp");
    with_config("bert", "position_embedding_type", TEXT("relative_key"),
                ENG_EUNSUP, "relative_key");
    with_config("roberta", "pad_token_id", NUMBER(79), ENG_EFORMAT,
                "positions");
    with_config("t5-relu-tied", "eos_token_id", NULL, ENG_EFORMAT,
                "eos_token_id");
    with_config("t5-relu-tied", "relative_attention_max_distance",
                NUMBER(2), ENG_EFORMAT, "a largest distance of 2");
    /* as many as the decoder's exact ones: a quotient of 0 and 0 */
    with_config("t5-relu-tied", "relative_attention_num_buckets", NUMBER(256),
                ENG_EFORMAT, "128 exact ones of 256 buckets");
    with_config("t5-gated-untied", "feed_forward_proj", TEXT("relu"),
                ENG_EFORMAT, "DenseReluDense.wi.weight is missing");
}


static void
test_tensors(void **state)
{
    char  path[TINY_PATH];

    static const char  *const name[] = {
        "embeddings.word_embeddings.weight",
        "encoder.layer.1.attention.self.key.weight",
        "encoder.layer.2.output.dense.bias",
        "encoder.layer.0.output.LayerNorm.weight",
    };

    (void) state;
    for (size_t i = 0; i < sizeof(name) / sizeof(name[0]); i++) {
        tiny_folder(path, model_of("bert"), name[i], NULL);
        refuse(path, ENG_EFORMAT, name[i]);
        tiny_drop(path);
        tiny_folder(path, model_of("bert"), NULL, name[i]);
        refuse(path, ENG_EFORMAT, name[i]);
        tiny_drop(path);
    }
}


static void
test_files(void **state)
{
    char  path[TINY_PATH], file[2 * TINY_PATH];

    (void) state;
    refuse("/nowhere/model", ENG_EIO, "/nowhere/model");
    tiny_folder(path, model_of("bert"), NULL, NULL);
    tiny_write(path, "config.json", "{\"model_type\":", 14);
    refuse(path, ENG_EFORMAT, "config.json");
    snprintf(file, sizeof(file), "%s/config.json", path);
    assert_int_equal(remove(file), 0);
    refuse(path, ENG_EIO, "config.json");
    assert_int_equal(enc_can_open(path), 0);
    tiny_drop(path);

    tiny_folder(path, model_of("bert"), NULL, NULL);
    snprintf(file, sizeof(file), "%s/model.safetensors", path);
    assert_int_equal(truncate(file, 4096), 0);
    refuse(path, ENG_EFORMAT, "model.safetensors");
    assert_int_equal(remove(file), 0);
    refuse(path, ENG_EIO, path);
    tiny_drop(path);
}


static void
modules(const char *path, const char *json)
{
    tiny_write(path, "modules.json", json, strlen(json));
}


static void
test_modules(void **state)
{
    int                rc;
    char               path[TINY_PATH], dir[2 * TINY_PATH];
    eng_err_t          err;
    enc_info_t         info;
    enc_opts_t         co = ENC_OPTS_INIT;
    const char        *pool = "{\"pooling_mode_cls_token\":true}";
    enc_model_opts_t   mo = ENC_MODEL_OPTS_INIT;

    (void) state;
    tiny_folder(path, model_of("bert"), NULL, NULL);
    snprintf(dir, sizeof(dir), "%s/1_Pooling", path);
    assert_int_equal(mkdir(dir, 0700), 0);
    modules(path, "[" MODULE("Transformer", "") ","
            MODULE("Pooling", "1_Pooling") "]");
    refuse(path, ENG_EIO, "1_Pooling/config.json");
    tiny_write(dir, "config.json", pool, strlen(pool));
    tiny_write(path, "sentence_bert_config.json",
               "{\"max_seq_length\":7}", 20);
    rc = enc_model_check(path, &mo, &co, &info, &err);
    assert_int_equal(rc, 0);
    assert_int_equal(info.pool, ENC_POOL_CLS);
    assert_int_equal(info.normalize, 0);
    assert_int_equal(info.max_seq, 7);

    modules(path, "[" MODULE("Dense", "2_Dense") "]");
    refuse(path, ENG_EUNSUP, "Dense");
    modules(path, "[" MODULE("Pooling", "../x") "]");
    refuse(path, ENG_EFORMAT, "leaves");
    modules(path, "[" FOUR "," FOUR "," FOUR "," FOUR "]");
    assert_int_equal(enc_model_check(path, &mo, &co, &info, &err), 0);
    modules(path, "[" FOUR "," FOUR "," FOUR "," FOUR ","
            MODULE("Normalize", "") "]");
    refuse(path, ENG_ELIMIT, "more than 16 modules");
    modules(path, "[{]");
    refuse(path, ENG_EFORMAT, "modules.json");
    tiny_write(dir, "config.json", "{}", 2);
    modules(path, "[" MODULE("Pooling", "1_Pooling") "]");
    refuse(path, ENG_EUNSUP, "no pooling");
    tiny_drop(path);
}


static void
test_batches(void **state)
{
    char          path[TINY_PATH];
    float         out[4 * 64];
    enc_t        *e;
    uint8_t       types[4] = { 0, 1, 0, 0 };
    uint32_t      ids[100] = { 5, 6, 7, 8 }, at[3] = { 0, 2, 4 };
    enc_batch_t   b = { ids, types, at, 2 };
    enc_model_t  *m;

    (void) state;
    tiny_folder(path, model_of("bert"), NULL, NULL);
    m = tiny_open(path, ENC_PREC_F32);
    e = tiny_engine(m, 2);
    assert_int_equal(enc_run(e, &b, out), 0);
    types[3] = 2;
    assert_int_equal(enc_run(e, &b, out), ENG_EINVAL);
    types[3] = 0;
    ids[1] = 96;
    assert_int_equal(enc_run(e, &b, out), ENG_EINVAL);
    ids[1] = 6;
    at[1] = 0;
    assert_int_equal(enc_run(e, &b, out), ENG_EINVAL);
    at[1] = 2;
    b.n_seqs = 0;
    assert_int_equal(enc_run(e, &b, out), ENG_EINVAL);
    b.n_seqs = 1;
    at[1] = 81;
    assert_int_equal(enc_run(e, &b, out), ENG_EINVAL);
    at[1] = 80;
    b.types = NULL;
    assert_int_equal(enc_run(e, &b, out), 0);
    enc_destroy(e);
    enc_model_close(m);
    tiny_drop(path);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_config),
        cmocka_unit_test(test_tensors),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_modules),
        cmocka_unit_test(test_batches),
    };

    golden = tiny_json(GOLDEN);
    if (golden == NULL) {
        fprintf(stderr, "%s is missing\n", GOLDEN);
        return 1;
    }

    return cmocka_run_group_tests(tests, NULL, NULL);
}

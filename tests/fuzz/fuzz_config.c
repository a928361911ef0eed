// config.json, generation_config.json, preprocessor_config.json and quantization labels, each
// reader on the same text.
#include "base/err.h"
#include "base/json.h"
#include "fuzz_target.h"
#include "model/family.h"
#include "model/image.h"
#include "store/label.h"

static void read_label(const json_t *config) {
    static const char *const modules[] = {"model.layers.0.mlp.up_proj", "lm_head", ""};
    qn_label l = {0};
    qn_err err = {0};
    bool ok = qn_label_read(&l, config, "config.json", &err);
    FUZZ_CHECK(ok == (err.code == QN_OK));
    for (size_t i = 0; i < 3; i++) qn_label_for(&l, modules[i]);
    qn_label_done(&l);
}

static void read_config(const json_t *config) {
    qn_config c = {0};
    qn_err err = {0};
    bool ok = qn_config_read(&c, config, "config.json", &err);
    FUZZ_CHECK(ok == (err.code == QN_OK));
    FUZZ_CHECK(!ok || (c.family && c.num_hidden_layers && c.num_key_value_heads && c.head_dim));
    FUZZ_CHECK(!ok || (c.n_eos >= 0 && c.n_eos <= 8));
    qn_config_done(&c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    qn_err err = {0};
    json_t *j = qn_json_parse((const char *)data, n, "config.json", &err);
    FUZZ_CHECK((j != NULL) == (err.code == QN_OK));
    if (!j) return 0;
    const json_t *inner = json_object_get(j, "quantization_config");
    read_config(j);
    read_label(inner ? inner : j);
    int32_t eos[8];
    int n_eos = 0;
    qn_eos_read(j, eos, &n_eos, "generation_config.json", &(qn_err){0});
    FUZZ_CHECK(n_eos >= 0 && n_eos <= 8);
    qn_image_config images;
    qn_image_config_read(j, "preprocessor_config.json", &images, &(qn_err){0});
    json_decref(j);
    return 0;
}

/* The bundled model, opened once for a test program. Nothing may depend on its exact weights. */
#ifndef GENERATE_BUNDLED_H
#define GENERATE_BUNDLED_H

#include "engine/spread.h"
#include "testing.h"

#include "engine/engine.h"
#include "tokenizer/tokenizer.h"

#define BUNDLED_MODEL CLM_SOURCE_DIR "/models/storyteller-4bit"

struct bundled {
    struct model_devices devices;
    struct model *model;
    engine *engine;
    tokenizer *tokenizer;
};

static inline struct bundled bundled_open(const char *dir)
{
    struct engine_options options = {.exact = true};
    struct bundled b;
    clm_error err = {0};

    CHECK(spread_open(&b.devices, 2, &err) == 0, "%s", err.message);
    b.model = spread_model(dir, NULL, &b.devices, &err);
    CHECK(b.model, "%s", err.message);
    b.engine = engine_open(b.model, &options, &err);
    CHECK(b.engine, "%s", err.message);
    b.tokenizer = tokenizer_open(dir, NULL, &err);
    CHECK(b.tokenizer, "%s", err.message);
    return b;
}

static inline void bundled_close(struct bundled *b)
{
    tokenizer_close(b->tokenizer);
    engine_close(b->engine);
    model_close(b->model);
    model_devices_close(&b->devices);
}

#endif

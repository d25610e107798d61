/* The bundled model, opened once for a test program. Nothing may depend on its exact weights. */
#ifndef GENERATE_BUNDLED_H
#define GENERATE_BUNDLED_H

#include "testing.h"

#include "engine/engine.h"
#include "tokenizer/tokenizer.h"

#define BUNDLED_MODEL CLM_SOURCE_DIR "/models/storyteller-4bit"

struct bundled {
    device *dev;
    struct model *model;
    engine *engine;
    tokenizer *tokenizer;
};

static inline struct bundled bundled_open(const char *dir)
{
    struct engine_options options = {.exact = true};
    struct bundled b;
    clm_error err = {0};

    b.dev = device_open(getenv("CLM_DEVICE") ? NULL : "cpu", 2, &err);
    CHECK(b.dev, "%s", err.message);
    b.model = model_open(dir, b.dev, NULL, &err);
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
    b->dev->ops->close(b->dev);
}

#endif

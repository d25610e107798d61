/* Streams a text: generate MODEL-FOLDER PROMPT */
#include <clm/clm.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    const char *prompt = argc > 2 ? argv[2] : "Once upon a time", *text;
    clm_error err = {0};
    clm_sampler_options options = clm_sampler_defaults();
    int32_t tokens[1024];
    const float *logits;
    size_t size;

    options.temp = 0.7;
    options.top_p = 0.95;
    clm_model *model = clm_model_open(argc > 1 ? argv[1] : ".", NULL, &err);
    clm_engine *engine = model ? clm_engine_open(model, NULL, &err) : NULL;
    clm_sequence *sequence = engine ? clm_sequence_open(engine, &err) : NULL;
    clm_sampler *sampler = model ? clm_sampler_open(model, &options, &err) : NULL;
    clm_detokenizer *words = model ? clm_detokenizer_open(model, true, &err) : NULL;
    int n = model ? clm_model_tokenize(model, prompt, strlen(prompt), true, tokens, 1024, &err) : 0;

    if (n > 1024)
        n = 1024;
    for (int i = 0; !err.code && i < 200; i++, n = 1) {
        if (clm_sequence_eval(sequence, tokens, n, &logits, &err))
            break;
        tokens[0] = clm_sampler_next(sampler, logits, NULL, 0, NULL, &err);
        if (err.code || clm_model_is_end(model, tokens[0]) ||
            clm_detokenizer_add(words, tokens[0], &text, &size, &err))
            break;
        fwrite(text, 1, size, stdout);
        fflush(stdout);
    }
    if (!err.code && clm_detokenizer_finish(words, &text, &size, &err) == 0)
        printf("%.*s\n", (int)size, text);
    if (err.code)
        fprintf(stderr, "generate: %s\n", err.message);
    clm_detokenizer_close(words);
    clm_sampler_close(sampler);
    clm_sequence_close(sequence);
    clm_engine_close(engine);
    clm_model_close(model);
    return err.code != 0;
}

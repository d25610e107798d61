#include "cli/other_names.h"

#include <string.h>

/* Several names that are answered alike, a space behind each. */
struct answer {
    const char *names, *text;
};

#define NOT_NEEDED "it is not needed here; leave it out"

static const struct answer options[] = {
    {"temperature ", "it is --temp here"},
    {"n-predict predict num-predict max-new-tokens max-length ", "it is --max-tokens here"},
    {"ngl n-gpu-layers ", "it is --gpu-layers here"},
    {"c ctx-size num-ctx n-ctx max-model-len max-seq-len ",
     "the cache grows up to the model's context; --max-kv-size bounds it"},
    {"repeat-penalty rep-pen ", "it is --repetition-penalty here"},
    {"repeat-last-n ", "it is --repetition-context-size here"},
    {"typical-p ", "it is --typical here"},
    {"top-n-sigma ", "it is --top-nsigma here"},
    {"r reverse-prompt stop-sequence stop-sequences ", "it is --stop here"},
    {"s ", "it is --seed here"},
    {"sys system ", "it is --system-prompt here"},
    {"sysf system-prompt-file ", "give the text: --system-prompt \"$(cat FILE)\""},
    {"f file prompt-file bf binary-file ", "give it as standard input: --prompt - < FILE"},
    {"chat-template jinja-template ", "it is --chat-template-file here"},
    {"chat-template-kwargs chat-template-args ", "it is --chat-template-config here"},
    {"ctk ctv cache-type-k cache-type-v ", "choose --cache-type, or --kv-bits 8 or 4"},
    {"b ub batch ubatch-size ", "it is --prefill-step-size here"},
    {"tb threads-batch ", "--threads is of both"},
    {"lora adapter adapters ", "it is --adapter-path here"},
    {"md model-draft draft-model-path ", "it is --draft-model here"},
    {"draft draft-max draft-n num-speculative-tokens ", "it is --num-draft-tokens here"},
    {"lookup ngram ", "it is --prompt-lookup here"},
    {"sm ts split-mode tensor-split tensor-parallel-size tp ", "it is --tensor-parallel here"},
    {"prompt-cache-file ",
     "what was said is kept by /save and /load, all of it with --cache-files"},
    {"prompt-cache ", "make a cache with clm cache-prompt and give it as --prompt-cache-file"},
    {"hf hfr hf-repo repo model-url mu ",
     "get the model with hf download, and name it with --model"},
    {"cnv conversation i interactive if interactive-first st single-turn ",
     "a conversation is clm chat, one answer clm generate"},
    {"no-cnv no-conversation raw no-chat-template ", "it is --ignore-chat-template here"},
    {"grammar grammar-file j json-schema jf json-schema-file response-format ",
     "clm does not hold a text to a grammar"},
    {"mm mmproj image audio ", "clm runs the language part of a model alone"},
    {"trust-remote-code ", "clm runs no code that comes with a model; leave it out"},
    {"fa flash-attn jinja mlock no-mmap no-warmup color co simple-io no-display-prompt e escape "
     "log-disable use-default-chat-template pipeline quantize-activations stream offline cb "
     "cont-batching numa prio poll cpu-mask perf no-perf special enable-prefix-caching ",
     NOT_NEEDED},
    {"quiet silent ", "it is --verbose false here"},
    {"prompt-tokens ", "it is --prompt here"},
    {"generation-tokens ", "it is --generate here"},
    {"num-trials ", "it is --repetitions here"},
    {"batch-size ", "it is --concurrent here"},
    {"sequence-length ", "it is --window here"},
    {"data-path f file ", "give the text as a FILE, or - for standard input"},
    {"p prompt ", "a prompt is for clm generate, what is said in clm chat is standard input"},
    {"np parallel max-num-seqs ", "it is --batch-size here"},
    {"num-samples num-return-sequences best-of ", "give --batch a line for each"},
    {"eos-token eos-token-id ", "it is --extra-eos-token here"},
    {"keep context-shift no-context-shift ",
     "--max-kv-size keeps the first tokens and the last ones of a text"},
    {"kv-cache-dtype ", "it is --cache-type here; --kv-bits quantises"},
    {"no-repeat-ngram-size ", "it is --dry-multiplier here"},
    {"do-sample ", "--temp above 0 draws"},
    {"samplers sampling-seq ", "samplers follow each other as docs/sampling.md says"},
    {"cmoe cpu-moe ncmoe n-cpu-moe ", "--gpu-layers says how many layers are on the GPU"},
    {"revision ", "it is part of the name: --model org/model@revision"},
    {"model-path ", "it is --model here"},
    {"rope-scaling rope-scale rope-freq-base rope-freq-scale yarn-orig-ctx override-kv ",
     "it is in the model's config.json"},
    {"list-devices ", "clm models lists them; see clm help models"},
    {"host port ", "there is no server"},
};

static const struct answer commands_elsewhere[] = {
    {"run ask complete completion cli ", "a text is clm generate, a conversation clm chat"},
    {"server serve api ", "there is no server; many requests at a time are clm generate --batch"},
    {"convert quantize fuse merge ",
     "models are read as they are; mlx_lm.convert, for one, quantises them"},
    {"pull download get ", "get a model with: hf download org/model"},
    {"list ls ps ", "what is there is clm models"},
    {"show info ", "it is clm inspect here"},
    {"eval evaluate ", "log-probabilities of texts are clm score"},
    {"ppl ", "it is clm perplexity here"},
    {"benchmark ", "it is clm bench here"},
    {"cache_prompt ", "it is clm cache-prompt here"},
    {"encode ", "it is clm tokenize here"},
    {"decode ", "it is clm detokenize here"},
    {"version -v ", "it is clm --version"},
    {"train lora finetune ", "clm does not train"},
};

/* The answer behind so many others. */
static const char *find(const struct answer *list, size_t n, const char *name, size_t size,
                        int others)
{
    for (size_t i = 0; i < n; i++)
        for (const char *s = list[i].names; *s; s += strcspn(s, " ") + 1)
            if (strcspn(s, " ") == size && strncmp(s, name, size) == 0 && others-- == 0)
                return list[i].text;
    return NULL;
}

const char *other_option(const char *name, size_t size, int i)
{
    return find(options, sizeof options / sizeof options[0], name, size, i);
}

const char *other_command(const char *name)
{
    return find(commands_elsewhere, sizeof commands_elsewhere / sizeof commands_elsewhere[0], name,
                strlen(name), 0);
}

# bash completion for clm, made by scripts/describe.py from what clm help says

_clm_options() {
    case $1 in
    generate) echo "-m --model --adapter-path --device --gpu-layers --tensor-parallel -t --threads --exact --cache-type --cache-bytes --kv-bits --kv-group-size --quantized-kv-start --max-kv-size -p --prompt --system-prompt --chat-template-file --chat-template-config --tools --tool-parser --prefill-response --ignore-chat-template --prompt-cache-file -n --max-tokens --temp --dynatemp-range --dynatemp-exp --top-nsigma --typical --top-p --min-p --min-tokens-to-keep --top-k --xtc-probability --xtc-threshold --repetition-penalty --repetition-context-size --presence-penalty --frequency-penalty --dry-multiplier --dry-base --dry-allowed-length --dry-penalty-last-n --dry-sequence-breaker --mirostat --mirostat-ent --mirostat-lr --logit-bias --seed --extra-eos-token --ignore-eos --stop --draft-model --prompt-lookup --num-draft-tokens --prefill-step-size --batch --batch-size --in-order --prompt-cache-size --prompt-cache-bytes --prompt-cache-dir --prompt-cache-dir-bytes --json --logprobs --parse --verbose -h --help" ;;
    chat) echo "-m --model --adapter-path --device --gpu-layers --tensor-parallel -t --threads --exact --cache-type --cache-bytes --kv-bits --kv-group-size --quantized-kv-start --max-kv-size --system-prompt --chat-template-file --chat-template-config --tools --tool-parser -n --max-tokens --temp --dynatemp-range --dynatemp-exp --top-nsigma --typical --top-p --min-p --min-tokens-to-keep --top-k --xtc-probability --xtc-threshold --repetition-penalty --repetition-context-size --presence-penalty --frequency-penalty --dry-multiplier --dry-base --dry-allowed-length --dry-penalty-last-n --dry-sequence-breaker --mirostat --mirostat-ent --mirostat-lr --logit-bias --seed --extra-eos-token --ignore-eos --stop --draft-model --prompt-lookup --num-draft-tokens --prefill-step-size --prompt-cache-size --prompt-cache-bytes --prompt-cache-dir --prompt-cache-dir-bytes --cache-files -h --help" ;;
    cache-prompt) echo "-m --model --adapter-path --device --gpu-layers --tensor-parallel -t --threads --exact --cache-type --cache-bytes --kv-bits --kv-group-size --quantized-kv-start --max-kv-size -p --prompt --prompt-cache-file --system-prompt --chat-template-file --chat-template-config --tools --ignore-chat-template --prefill-step-size -h --help" ;;
    bench) echo "-m --model -s --shape -b --bits --group-size --layers -p --prompt -n --generate --prompt-generate -d --depth --concurrent -r --repetitions --no-limits -t --threads --cache-type --kv-bits --prefill-step-size -o --output --json --adapter-path --device --gpu-layers --tensor-parallel --exact --cache-bytes --kv-group-size --quantized-kv-start --max-kv-size -h --help" ;;
    perplexity) echo "-m --model --adapter-path --device --gpu-layers --tensor-parallel -t --threads --exact --cache-type --cache-bytes --kv-bits --kv-group-size --quantized-kv-start --max-kv-size -w --window --stride -c --ctx-size -n --max-tokens --save-logits --kl-divergence --json -h --help" ;;
    score) echo "-m --model --adapter-path --device --gpu-layers --tensor-parallel -t --threads --exact --cache-type --cache-bytes --kv-bits --kv-group-size --quantized-kv-start --max-kv-size --per-token -h --help" ;;
    tokenize) echo "-m --model -p --prompt --no-special -h --help" ;;
    detokenize) echo "-m --model --tokens --skip-special -h --help" ;;
    render) echo "-m --model --template --template-name --now --raw -h --help" ;;
    logits) echo "-m --model --adapter-path --device --gpu-layers --tensor-parallel -t --threads --exact --cache-type --cache-bytes --kv-bits --kv-group-size --quantized-kv-start --max-kv-size --tokens --decode --prefill-step-size --prompt-cache-file --save-prompt-cache --batch -o --out -h --help" ;;
    inspect) echo "-m --model --adapter-path --device --gpu-layers --tensor-parallel -t --threads --exact --cache-type --cache-bytes --kv-bits --kv-group-size --quantized-kv-start --max-kv-size --json -h --help" ;;
    models) echo "--json --devices -h --help" ;;
    help) echo "-h --help" ;;
    *) echo "--version --help" ;;
    esac
}

# What may follow an option; fails where nothing can be guessed.
_clm_value() {
    case $1 in
    --adapter-path | --batch | --chat-template-file | --draft-model | --kl-divergence | --model | --out | --prompt-cache-dir | --prompt-cache-file | --save-logits | --save-prompt-cache | --template | --tools | -m | -o) _clm_files "$2" ;;
    --bits) COMPREPLY=($(compgen -W "2 3 4 5 6 8 16" -- "$2")) ;;
    --cache-type) COMPREPLY=($(compgen -W "auto f32 f16 bf16" -- "$2")) ;;
    --gpu-layers) COMPREPLY=($(compgen -W "all auto" -- "$2")) ;;
    --group-size) COMPREPLY=($(compgen -W "32 64 128" -- "$2")) ;;
    --kv-bits) COMPREPLY=($(compgen -W "none 4 8" -- "$2")) ;;
    --kv-group-size) COMPREPLY=($(compgen -W "32 64 128" -- "$2")) ;;
    --max-tokens) COMPREPLY=($(compgen -W "all" -- "$2")) ;;
    --shape) COMPREPLY=($(compgen -W "llama-3.2-1b llama-3.1-8b qwen3-0.6b qwen3-30b-a3b gemma-3-4b tinyllama-1.1b deepseek-v2-lite mamba2-1.3b falcon-h1-1.5b qwen3-next-80b-a3b storyteller" -- "$2")) ;;
    --verbose) COMPREPLY=($(compgen -W "true false" -- "$2")) ;;
    *) return 1 ;;
    esac
}

_clm() {
    local commands="generate chat cache-prompt bench perplexity score tokenize detokenize render logits inspect models help"
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} command=""

    COMPREPLY=()
    [ "$COMP_CWORD" -gt 1 ] && command=${COMP_WORDS[1]}
    if [ -z "$command" ] || [ "$command" = help ]; then
        COMPREPLY=($(compgen -W "$commands" -- "$word"))
    fi
    case $word in
    -*) COMPREPLY=($(compgen -W "$(_clm_options "$command")" -- "$word")) ;;
    *) _clm_value "$before" "$word" || _clm_operand "$command" "$word" ;;
    esac
}

_clm_files() {
    compopt -o filenames 2>/dev/null
    COMPREPLY=($(compgen -f -- "$1"))
}

_clm_operand() {
    case $1 in
    perplexity) _clm_files "$2" ;;
    esac
}

complete -F _clm clm

# bash completion for clm

_clm_options() {
    case $1 in
    generate)
        echo "-m --model -p --prompt -n --max-tokens --temp --top-p --top-k --min-p --seed" \
            "--extra-eos-token --ignore-chat-template --system-prompt --prefill-response --json" \
            "--exact --threads --prefill-step-size --verbose"
        ;;
    bench)
        echo "-m --model --shape --bits --mode -p --prompt-tokens -n --generation-tokens" \
            "-r --repetitions --threads --exact --json"
        ;;
    tokenize) echo "-m --model --no-special" ;;
    detokenize) echo "-m --model --skip-special" ;;
    logits)
        echo "-m --model --tokens --decode --prefill-step-size --out --exact --threads"
        ;;
    inspect) echo "-m --model --json" ;;
    perplexity) echo "-m --model --file --window --exact --threads" ;;
    models | help) ;;
    "") echo "--version" ;;
    esac
    echo "--help"
}

# What the option before the cursor wants; fails where it wants nothing that can be guessed.
_clm_value() {
    case $1 in
    -m | --model | --file | --out) compopt -o filenames 2>/dev/null && COMPREPLY=($(compgen -f -- "$2")) ;;
    --shape) COMPREPLY=($(compgen -W "$_clm_shapes" -- "$2")) ;;
    --bits) COMPREPLY=($(compgen -W "2 3 4 5 6 8 16 32" -- "$2")) ;;
    --mode) COMPREPLY=($(compgen -W "affine mxfp4 nvfp4 mxfp8" -- "$2")) ;;
    *) return 1 ;;
    esac
}

_clm() {
    local commands="generate bench tokenize detokenize logits inspect models perplexity help"
    local _clm_shapes="llama-3.2-1b llama-3.1-8b qwen3-0.6b qwen3-30b-a3b gemma-3-4b"
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} command=""

    COMPREPLY=()
    [ "$COMP_CWORD" -gt 1 ] && command=${COMP_WORDS[1]}
    if [ -z "$command" ] || [ "$command" = help ]; then
        COMPREPLY=($(compgen -W "$commands" -- "$word"))
    fi
    case $word in
    -*) COMPREPLY=($(compgen -W "$(_clm_options "$command")" -- "$word")) ;;
    *) _clm_value "$before" "$word" ;;
    esac
}

complete -F _clm clm

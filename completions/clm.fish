# fish completion for clm

set -l shapes llama-3.2-1b llama-3.1-8b qwen3-0.6b qwen3-30b-a3b gemma-3-4b

function __clm_in
    __fish_seen_subcommand_from $argv
end

complete -c clm -f
complete -c clm -n __fish_use_subcommand -l version -d 'Show the version'
complete -c clm -l help -d 'Show help'

complete -c clm -n __fish_use_subcommand -a generate -d 'Text from a prompt'
complete -c clm -n __fish_use_subcommand -a bench -d 'Speeds at the shape of a model'
complete -c clm -n __fish_use_subcommand -a tokenize -d 'Text to token ids, as JSON lines'
complete -c clm -n __fish_use_subcommand -a detokenize -d 'Token ids to text, as JSON lines'
complete -c clm -n __fish_use_subcommand -a logits -d 'Logits of given tokens, to a file'
complete -c clm -n __fish_use_subcommand -a inspect -d 'What a model is made of'
complete -c clm -n __fish_use_subcommand -a models -d 'Supported and cached models'
complete -c clm -n __fish_use_subcommand -a perplexity -d 'Perplexity of a text'
complete -c clm -n __fish_use_subcommand -a help -d 'Help for a command'
complete -c clm -n '__clm_in help' -a 'generate bench tokenize detokenize logits inspect models perplexity'

complete -c clm -n '__clm_in generate bench tokenize detokenize logits inspect perplexity' -s m -l model -r -F -d 'Directory, GGUF file or hub name'
complete -c clm -n '__clm_in generate bench logits perplexity' -l exact -d 'No approximations'
complete -c clm -n '__clm_in generate bench logits perplexity' -l threads -x -d 'Number of threads'
complete -c clm -n '__clm_in generate logits' -l prefill-step-size -x -d 'Prompt tokens per step'
complete -c clm -n '__clm_in generate bench inspect' -l json -d 'JSON output'

complete -c clm -n '__clm_in generate' -s p -l prompt -x -d 'Prompt, or - for standard input'
complete -c clm -n '__clm_in generate' -s n -l max-tokens -x -d 'Most tokens to generate'
complete -c clm -n '__clm_in generate' -l temp -x -d 'Temperature; 0 is greedy'
complete -c clm -n '__clm_in generate' -l top-p -x -d 'Probability mass to choose from'
complete -c clm -n '__clm_in generate' -l top-k -x -d 'Number of tokens to choose from'
complete -c clm -n '__clm_in generate' -l min-p -x -d 'Least probability, relative to the best'
complete -c clm -n '__clm_in generate' -l seed -x -d 'Seed of the random numbers'
complete -c clm -n '__clm_in generate' -l extra-eos-token -x -d 'One more token that ends the text'
complete -c clm -n '__clm_in generate' -l ignore-chat-template -d 'Use the prompt as it is'
complete -c clm -n '__clm_in generate' -l system-prompt -x -d 'System message'
complete -c clm -n '__clm_in generate' -l prefill-response -x -d 'How the answer begins'
complete -c clm -n '__clm_in generate' -l verbose -x -a 'true false' -d 'Show speeds at the end'

complete -c clm -n '__clm_in bench' -l shape -x -a "$shapes" -d 'Random weights of this shape'
complete -c clm -n '__clm_in bench' -l bits -x -a '2 3 4 5 6 8 16 32' -d 'Bits of a weight'
complete -c clm -n '__clm_in bench' -l mode -x -a 'affine mxfp4 nvfp4 mxfp8' -d 'Quantisation'
complete -c clm -n '__clm_in bench' -s p -l prompt-tokens -x -d 'Tokens of the prompt'
complete -c clm -n '__clm_in bench' -s n -l generation-tokens -x -d 'Tokens to generate'
complete -c clm -n '__clm_in bench' -s r -l repetitions -x -d 'Runs'

complete -c clm -n '__clm_in tokenize' -l no-special -d 'Add no special tokens'
complete -c clm -n '__clm_in detokenize' -l skip-special -d 'Leave out special tokens'

complete -c clm -n '__clm_in logits' -l tokens -x -d 'Ids of the prompt: 1,2,3'
complete -c clm -n '__clm_in logits' -l decode -x -d 'Ids to feed one by one: 4,5'
complete -c clm -n '__clm_in logits' -l out -r -F -d 'Safetensors file to write'

complete -c clm -n '__clm_in perplexity' -l file -r -F -d 'Text file'
complete -c clm -n '__clm_in perplexity' -l window -x -d 'Tokens of a window'

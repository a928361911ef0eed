# bash completion for quern; written by tools/completions.sh from 'quern help --json'
_quern() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}
    local command= options= choices= i
    local commands="cpu where inspect tokenize template run chat dump bench check compare eval convert repair pad help"
    for ((i = 1; i < COMP_CWORD; i++)); do
        case " $commands " in *" ${COMP_WORDS[i]} "*) command=${COMP_WORDS[i]}; break ;; esac
    done
    # --name=value arrives in three words
    [[ $cur == = ]] && cur= || { [[ $prev == = ]] && prev=${COMP_WORDS[COMP_CWORD-2]}; }
    case $prev in
        --precision) choices="exact fast" ;;
        --weights) choices="stored f32 bf16 q8 q4" ;;
        --load-format) choices="auto dummy" ;;
        --reference) choices="MODEL DUMP" ;;
        --dtype) choices="f32 bf16 f16" ;;
        --layout) choices="tail interleave" ;;
        --file|-f|--tools|--template|--image|--output|-o|--html|--text) mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
        --threads|--set|--prompt|-p|--tokens|--temperature|--top-p|--top-k|--min-p|--repetition-penalty|--presence-penalty|--frequency-penalty|--seed|--stop|--max-tokens|-n|--max-num-batched-tokens|--max-num-seqs|--max-model-len|--kv-cache-memory-bytes|--speculative-config|--system|--generate|-n|--batch|-b|--context|--repeat|--against|--group-size|--cosine|--max-abs|--top1|--stride|--shard-size|--tp) return ;;
    esac
    if [[ -n $choices ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$choices" -- "$cur")
        return
    fi
    case $command in
        cpu) options="--measure --threads --json --quiet -q --help -h" ;;
        where) options="--json --quiet -q --help -h" ;;
        inspect) options="--tensors --json --quiet -q --help -h" ;;
        tokenize) options="--file -f --plain --decode --skip-special --jsonl --json --quiet -q --help -h" ;;
        template) options="--file -f --tools --set --no-generation-prompt --continue-final --template --jsonl --json --quiet -q --help -h" ;;
        run) options="--prompt -p --file -f --tokens --temperature --top-p --top-k --min-p --repetition-penalty --presence-penalty --frequency-penalty --seed --stop --ignore-eos --max-tokens -n --threads --precision --weights --max-num-batched-tokens --max-num-seqs --max-model-len --kv-cache-memory-bytes --speculative-config --json --quiet -q --help -h" ;;
        chat) options="--prompt -p --file -f --system --image --think --no-think --temperature --top-p --top-k --min-p --repetition-penalty --presence-penalty --frequency-penalty --seed --stop --ignore-eos --max-tokens -n --threads --precision --weights --max-num-batched-tokens --max-num-seqs --max-model-len --kv-cache-memory-bytes --speculative-config --json --quiet -q --help -h" ;;
        dump) options="--prompt -p --file -f --tokens --output -o --hidden --mtp --image --threads --precision --weights --max-num-batched-tokens --max-num-seqs --max-model-len --kv-cache-memory-bytes --speculative-config --json --quiet -q --help -h" ;;
        bench) options="--prompt -p --generate -n --batch -b --context --repeat --load-format --threads --precision --weights --max-num-batched-tokens --max-num-seqs --max-model-len --kv-cache-memory-bytes --speculative-config --json --quiet -q --help -h" ;;
        check) options="--against --forward --tensors --group-size --precision --threads --json --quiet -q --help -h" ;;
        compare) options="--html --cosine --max-abs --top1 --precision --threads --json --quiet -q --help -h" ;;
        eval) options="--text --context --stride --tail --reference --threads --precision --weights --max-num-batched-tokens --max-num-seqs --max-model-len --kv-cache-memory-bytes --speculative-config --json --quiet -q --help -h" ;;
        convert) options="--dtype --saturate --keep-extra --as-is --shard-size --overwrite --threads --json --quiet -q --help -h" ;;
        repair) options="--group-size --reference --shard-size --overwrite --threads --json --quiet -q --help -h" ;;
        pad) options="--tp --group-size --layout --forward --as-is --shard-size --overwrite --threads --json --quiet -q --help -h" ;;
        help) options="--json --quiet -q --help -h" ;;
    esac
    if [[ $cur == -* ]]; then
        [[ -z $command ]] && options="--help --version"
        mapfile -t COMPREPLY < <(compgen -W "$options" -- "$cur")
    elif [[ -z $command || $command == help ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$commands" -- "$cur")
    else
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
    fi
}
complete -o filenames -F _quern quern

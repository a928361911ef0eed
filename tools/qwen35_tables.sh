#!/bin/sh
# The tables of docs/qwen3.5.md, as Markdown on stdout. qwen35_tables.sh [QUERN]; about three
# minutes. Values of the trained model do not depend on the machine, times do. The last table needs
# perf and is left out without it.
set -eu
cd "$(dirname "$0")/.."
quern=${1:-build/release/quern}
model=tests/data/tiny-qwen3.5
shape=tests/data/model_configs/qwen3.5-0.8b # a config without weights: they are made up
text=models/tiny-qwen3/reference/valid.txt
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
say() { printf '\n### %s\n\n' "$*"; }

say "Precision against fp32"
echo "| weights | activations | perplexity | mean KL | 99 % KL | max KL | same top-1 |"
echo "|---|---|---|---|---|---|---|"
eval_row() { # weights, precision, words for the two
    "$quern" eval $model --text $text --weights "$1" --precision "$2" --reference $model -q |
        awk -v w="$3" -v a="$4" '/^perplexity/ { p = $2 " ± " $4 }
            /^KL/ { kl = $2; for (i = 1; i < NF; i++) { if ($i == "99") q = $(i + 2)
                                                        if ($i == "max") m = $(i + 1) } }
            /^same/ { t = $3 }
            END { printf "| %s | %s | %s | %s | %s | %s | %s %% |\n", w, a, p, kl, q, m, t }'
}
eval_row f32 exact fp32 fp32
eval_row stored exact "bf16 (as stored)" fp32
eval_row stored fast "bf16 (as stored)" bf16
eval_row q8 exact int8 fp32
eval_row q8 fast int8 int8
eval_row q4 fast int4 int8

say "Greedy self-consistency"
echo "| prompt | continuation | equal |"
echo "|---|---|---|"
while IFS= read -r prompt; do
    run() { "$quern" run $model -p "$prompt" --temp 0 -n 24 -q "$@"; }
    run > "$tmp/first"
    same=0
    total=0
    for how in "--threads 1" "--threads 2" "--max-num-batched-tokens 1" "--max-num-batched-tokens 3" \
        '--speculative-config {"method":"mtp","num_speculative_tokens":3,"always":true}'; do
        # shellcheck disable=SC2086 # options without blanks inside
        run $how > "$tmp/again"
        total=$((total + 1))
        cmp -s "$tmp/first" "$tmp/again" && same=$((same + 1))
    done
    echo "| $prompt | $(head -1 "$tmp/first" | cut -c 1-50) | $same of $total |"
done << END
The capital of France is
The capital of Japan is
Once upon a time
What is 7+5?
The sun is
One day, a small cat
Madrid is the capital of
Count: one, two,
END

say "Hidden states by layer, fp32 against bf16"
head -c 1500 $text > "$tmp/text"
"$quern" dump $model -f "$tmp/text" --hidden --weights f32 -o "$tmp/a.safetensors" -q
"$quern" dump $model -f "$tmp/text" --hidden --precision fast -o "$tmp/b.safetensors" -q
echo "| tensor | norm fp32 | norm bf16 | cosine | relative rms |"
echo "|---|---|---|---|---|"
{ "$quern" compare "$tmp/a.safetensors" "$tmp/b.safetensors" -q || true; } |
    awk '/^hidden/ { printf "| %s | %s | %s | %s | %s |\n", $1, $5, $6, $2, $4 }'

bench_rows() { # name, then options of bench
    name=$1
    shift
    "$quern" bench "$@" -q | awk -v n="$name" '/^(prefill|decode)/ {
        printf "| %s | %s | %s | %s | %s | %s to %s | %s |\n", n, $1, $2, $3, $4, $5, $6, $7 }'
}
bench_head() {
    echo "| weights | | batch | tokens | tok/s | range | ms/step |"
    echo "|---|---|---|---|---|---|---|"
}
say "Speed of the bundled model, by batch and by length"
bench_head
bench_rows bf16 $model -p 32,128,512,2048 -n 32 -b 1,8 --repeat 2
bench_rows bf16 $model -p 8 -n 32 -b 2,4 --repeat 2 | grep decode
bench_rows bf16 $model -p 8 -n 32 -b 1 --context 2048 --repeat 2 | grep decode
bench_rows int8 $model --weights q8 -p 512 -n 32 -b 1,8 --repeat 2

say "Speed of the published 0.8B shape (made-up weights)"
bench_head
bench_rows bf16 $shape --load-format dummy -p 128 -n 4 -b 1,4 --repeat 1
bench_rows int8 $shape --load-format dummy --weights q8 -p 128 -n 8 -b 1,4 --repeat 1

say "Memory"
echo "| | weights | KV a token | state a sequence |"
echo "|---|---|---|---|"
"$quern" inspect $model | awk '/^bytes/ { b = $2 " " $3 } /^kv bytes/ { k = $5 " " $6 }
    /^state bytes/ { s = $5 " " $6 } END { printf "| bundled model | %s | %s | %s |\n", b, k, s }'

say "Drafts by the checkpoint's own layer"
echo "| drafts a step | accepted | of drafted | share | tokens a step |"
echo "|---|---|---|---|---|"
for k in 1 2 3 4; do
    for prompt in "The capital of France is" "Once upon a time" "What is 12-11?" "Madrid is"; do
        "$quern" run $model -p "$prompt" --temp 0 -n 200 --ignore-eos --speculative-config \
            '{"method":"mtp","num_speculative_tokens":'$k',"always":true}' 2>&1 > "$tmp/out" |
            sed -n 's/.*; \([0-9]*\) of \([0-9]*\) drafts.*/\1 \2/p'
    done | awk -v k=$k '{ a += $1; d += $2 } END {
        printf "| %d | %d | %d | %.0f %% | %.2f |\n", k, a, d, 100 * a / d, 1 + a / (d / k) }'
done

command -v perf > "$tmp/out" || exit 0
say "Share of the recurrence in prefill (0.8B shape, 512 tokens)"
echo "| weights | delta rule | convolution, decay | matrices |"
echo "|---|---|---|---|"
for weights in stored q8; do
    perf record -q -o "$tmp/perf" -F 200 "$quern" bench $shape --load-format dummy \
        --weights $weights -p 512 -n 1 -b 1 --repeat 1 -q > "$tmp/out" 2>&1
    # Without what is not prefill: inventing weights, first touch of memory, measuring the machine.
    perf report -i "$tmp/perf" --stdio --no-children --sort symbol -n 2> "$tmp/out" |
        awk -v w=$weights '/\[k\]|peak_|read_streams|put_|_rows|memset|memmove|invent|philox/ { next }
            /\[\.\]/ { all += $2
                if ($4 ~ /^(delta|dot_lanes_row|slice)/) d += $2
                if ($4 == "row_task") c += $2
                if ($4 ~ /^(bf16_run|q8_run|dot_)/ && $4 !~ /lanes/) m += $2 }
            END { printf "| %s | %.1f %% | %.1f %% | %.1f %% |\n", w, 100 * d / all, 100 * c / all, \
                         100 * m / all }'
done

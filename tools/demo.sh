#!/bin/sh
# Shows quern at work on the two bundled models: what the quantized one is, that both give the
# answers that are known to be right, a chat turn, and the speed. demo.sh [QUERN]
# Exits 1 when an answer is wrong or the two differ.
set -eu
cd "$(dirname "$0")/.."
quern=${1:-build/release/quern}
float=models/tiny-qwen3
int8=models/tiny-qwen3-gptq-int8
facts=$float/reference/facts.jsonl
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

title() { printf '\n== %s\n\n' "$*"; }
shown() { printf '$ quern %s\n' "$*"; }

# The known answer to a question of facts.jsonl.
known() {
    grep -F "\"kind\": \"chat\", \"prompt\": \"$1\"," "$facts" | sed 's/.*"answer": "\([^"]*\)".*/\1/'
}

# A question through the checkpoint's chat template, then the greedy continuation of that prompt.
ask() { # MODEL QUESTION
    printf '[{"role":"user","content":"%s"}]' "$2" > "$work/messages.json"
    "$quern" template "$1" -f "$work/messages.json" --set enable_thinking=false > "$work/prompt"
    "$quern" run "$1" -f "$work/prompt" --temperature 0 -n 48 -q
}

title "What the quantized checkpoint is"
shown inspect $int8
"$quern" inspect $int8

title "Its answers beside those of the bf16 original"
shown run MODEL -f PROMPT --temperature 0 -n 48
echo
asked=0 right=0 same=0
for question in \
    "What is the capital of France?" \
    "Which country has the capital Warsaw?" \
    "What is 8+12?" \
    "Which month comes after July?" \
    "中国的首都是哪里?" \
    "越南的首都是哪里?" \
    "法国在哪里?"; do
    truth=$(known "$question")
    a=$(ask $float "$question") b=$(ask $int8 "$question")
    verdict="same, right"
    asked=$((asked + 1))
    [ "$a" = "$b" ] && same=$((same + 1)) || verdict="THEY DIFFER"
    [ "$a" = "$truth" ] && right=$((right + 1)) || verdict="WRONG, expected: $truth"
    printf '  question   %s\n  bf16       %s\n  GPTQ-Int8  %s\n  %s\n\n' "$question" "$a" "$b" "$verdict"
done
echo "$right of $asked right, $same of $asked the same from both files"

title "A chat turn"
shown chat $int8 -p "\"What is the capital of Japan?\"" --temperature 0 --think
"$quern" chat $int8 -p "What is the capital of Japan?" --temperature 0 --think 2>&1

title "Speed and memory"
for model in $float $int8; do
    shown bench $model -p 128 -n 32 -b 1,4
    "$quern" bench $model -p 128 -n 32 -b 1,4
    echo
done

[ "$right" = "$asked" ] && [ "$same" = "$asked" ] || { echo "demo: answers are wrong" >&2; exit 1; }

#!/bin/sh
# The page of `quern compare --html` in a real browser: its script runs under its own security policy,
# speaks the browser's language, sorts and searches, a hostile file name stays text, nothing is wider
# than the window, plots name their axes in one language, and it prints. Skipped (77) without
# Chromium. report.sh QUERN
set -u
quern=$1
browser=
for name in chromium chromium-browser google-chrome; do
    command -v "$name" > /dev/null && { browser=$name; break; }
done
[ -n "$browser" ] || { echo "browser: no chromium here, skipped"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bad=0
complain() { echo "browser: $*"; bad=1; }

browse() { # OPTIONS… URL; the console in $work/log
    timeout 60 "$browser" --headless --no-sandbox --disable-gpu --disable-quic --no-first-run \
        --disable-background-networking --disable-component-update --disable-sync \
        --user-data-dir="$work/profile" --enable-logging=stderr "$@" 2> "$work/log"
}
dom() { browse --dump-dom "$@"; } # the document after its script has run

# In a folder whose name would be markup, and with a script of its own, were it not escaped.
evil="$work/<script>document.title='broken'<"
mkdir -p "$evil"
model=models/tiny-qwen3
"$quern" dump $model --tokens "1 2 3 4 5" --hidden -o "$evil/a.safetensors" -q &&
    "$quern" dump $model-gptq-int8 --tokens "1 2 3 4 5" --hidden -o "$evil/b.safetensors" -q ||
    complain "dump failed"
"$quern" compare "$evil/b.safetensors" "$evil/a.safetensors" --html "$work/page.html" -q > /dev/null
[ $? = 1 ] || complain "compare did not end with 1"

dom "file://$work/page.html" > "$work/dom"
[ -s "$work/dom" ] || { sed -n 1,5p "$work/log"; echo "browser: $browser does not run, skipped"; exit 77; }
grep -q '<title>quern compare</title>' "$work/dom" || complain "the title is not ours"
grep -q '<th scope="col"[^>]*><button type="button">' "$work/dom" || complain "tables have no buttons"
grep -qE 'Refused to|Uncaught|violates the following' "$work/log" &&
    { complain "the console says:"; grep -E 'Refused|Uncaught|violates' "$work/log"; }
grep -q 'id="switch"[^>]*hidden' "$work/dom" && complain "the language cannot be switched"
dom "file://$work/page.html#zh" | grep -q '<html lang="zh">' || complain "#zh does not speak Chinese"
dom "file://$work/page.html#en" | grep -q '<html lang="en">' || complain "#en does not speak English"

# Sorting: a page that clicks the first table's second head and shows the first column's order. The
# policy is taken out, for the click is a foreign script.
sed -e 's/<meta http-equiv[^>]*>//' "$work/page.html" > "$work/clicked.html"
cat >> "$work/clicked.html" << 'END'
<script>
{
const head = document.querySelectorAll("table th")[2]; // max abs
head.firstChild.click();
const order = () => Array.from(head.closest("table").tBodies[0].rows,
                               (r) => Number(r.cells[2].dataset.v));
const up = order();
head.firstChild.click();
const down = order();
const rising = (x) => x.every((v, i) => i === 0 || x[i - 1] <= v);
document.title = rising(up) && rising(down.reverse()) && up.length > 3 ? "sorted" : "not sorted";
}
</script>
END
dom "file://$work/clicked.html" | grep -q '<title>sorted</title>' || complain "tables do not sort"

# A page of two checkpoints, 24 weights on it, asked by a script of ours for what it looks like.
data=tests/data/quantized
"$quern" compare $data/broken-signed-view $data/base-bf16 --html "$work/weights.html" -q > /dev/null
sed -e 's/<meta http-equiv[^>]*>//' "$work/weights.html" > "$work/asked.html"
cat >> "$work/asked.html" << 'END'
<script>
{
const shown = (e) => getComputedStyle(e).display !== "none";
const said = [];
const labels = Array.from(document.querySelectorAll("svg text.label")).filter(shown);
if (labels.length < 8 || labels.some((e) => e.getAttribute("lang") !== page.lang)) said.push("axes");
const wide = Array.from(document.querySelectorAll("main *")).filter(
  (e) => !e.closest(".table") && e.getBoundingClientRect().right > innerWidth + 1);
if (wide.length) said.push("wide");
const input = document.querySelector("input.filter");
const rows = Array.from(input.nextElementSibling.querySelectorAll("tbody tr"));
input.value = "LAYERS.1 q_proj";
input.dispatchEvent(new Event("input"));
if (rows.length !== 24 || rows.filter(shown).length !== 1) said.push("search");
const regions = document.querySelectorAll(".table");
if (Array.from(regions).some((e) => e.tabIndex !== 0)) said.push("keyboard");
document.title = said.length ? "bad: " + said.join(", ") : "all is well";
}
</script>
END
for size in 1300,900 500,900; do
    for language in en zh; do
        dom --window-size=$size "file://$work/asked.html#$language" > "$work/dom"
        grep -q '<title>all is well</title>' "$work/dom" ||
            complain "$size $language: $(grep -o "<title>bad[^<]*" "$work/dom")"
    done
done
browse --no-pdf-header-footer --print-to-pdf="$work/page.pdf" "file://$work/weights.html"
[ "$(head -c 5 "$work/page.pdf" 2> /dev/null)" = %PDF- ] || complain "the page does not print"

# A table that goes on overleaf says there again what its columns are.
if command -v pdftotext > /dev/null; then
    "$quern" compare $model-gptq-int8 $model --html "$work/long.html" -q > /dev/null
    browse --no-pdf-header-footer --print-to-pdf="$work/long.pdf" "file://$work/long.html#en"
    heads=$(pdftotext -layout "$work/long.pdf" - | grep -c 'norm A.*norm B')
    [ "$heads" -gt 2 ] || complain "two tables of 56 rows print $heads heads"
fi

[ "$bad" = 0 ] && echo "the page works in $browser"
exit "$bad"

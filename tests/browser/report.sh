#!/bin/sh
# The page of `quern compare --html` in a real browser: its script runs under its own security policy,
# speaks the browser's language, sorts, and a hostile file name stays text. Skipped (77) without
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

dom() { # URL: the document after its script has run; the console in $work/log
    timeout 60 "$browser" --headless --no-sandbox --disable-gpu --disable-quic --no-first-run \
        --disable-background-networking --disable-component-update --disable-sync \
        --user-data-dir="$work/profile" --enable-logging=stderr --dump-dom "$1" 2> "$work/log"
}

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
[ "$bad" = 0 ] && echo "the page works in $browser"
exit "$bad"

#!/bin/sh
# Proves the house's order and names every breach, one a line:
#   rooms include only their own room, strictly lower floors and quern.h;
#   each header compiles alone; file names are unique in the tree; files stay readable in length;
#   nothing names a place outside of the repository.
# Run from anywhere: tools/check_rooms.sh [COMPILER]
set -u
export LC_ALL=C.UTF-8
cd "$(dirname "$0")/.." || exit 1
cc=${1:-cc}
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
: > "$work/breaches"
breach() { cat >> "$work/breaches"; }

# Generated tables and embedded files may be as long and as wide as they are.
generated='_(tables?|assets)\.[ch]$'

sources() { find src include tests examples bench -path tests/data -prune -o -name '*.[ch]' -print | sort; }
sources > "$work/sources"

# ---- floors ----
xargs grep -nE '^[[:space:]]*#[[:space:]]*include' < "$work/sources" /dev/null | awk '
BEGIN {
    n = split("base 0 text 1 kernel 1 store 2 model 3 engine 4 quant 4 serve 5 cli 6", f, " ")
    for (i = 1; i < n; i += 2) floor[f[i]] = f[i + 1]
}
{
    split($0, at, ":")
    file = at[1]; line = at[2]
    text = substr($0, length(file) + length(line) + 3)
    where = file ":" line ": "
    if (text ~ /<quern\.h>/ && file !~ /^examples\//) { print where "write \"quern.h\", not <quern.h>"; next }
    if (text !~ /"/) next
    split(text, quoted, "\"")
    to = quoted[2]
    if (to ~ /\.\./) { print where "includes " to ": paths start in src/"; next }
    if (to ~ /\.c$/) { print where "includes the .c file " to; next }
    if (file !~ /^src\//) next
    split(file, part, "/")
    room = part[2]
    if (!(room in floor)) { print where "room " room " has no floor (tools/check_rooms.sh)"; next }
    if (to == "quern.h") next
    split(to, dest, "/")
    if (!(dest[1] in floor)) { print where "includes " to ": no such room"; next }
    if (dest[1] == room) next
    if (floor[dest[1]] >= floor[room])
        print where room " (floor " floor[room] ") includes " to " (floor " floor[dest[1]] ")"
    else if (floor[room] >= 5 && dest[1] !~ /^(base|quant|serve)$/)
        print where room " is a program over the library: quern.h, quant and base, not " to
}' | breach

# ---- every header alone ----
grep -E '\.h$' "$work/sources" | while read -r header; do
    "$cc" -std=c17 -D_GNU_SOURCE -Wall -Wextra -fsyntax-only -Iinclude -Isrc -Itests -x c "$header" \
        2> "$work/errors" || { echo "$header: does not compile alone"; sed 's/^/    /' "$work/errors"; }
done | breach

# ---- names ----
grep -v '^examples/' "$work/sources" | sed -E 's/\.[ch]$//' | sort -u | awk -F/ '{
    if ($NF in seen) print $0 " and " seen[$NF] ": one name, two places"
    seen[$NF] = $0
    if ($NF ~ /[^a-z0-9_]/) print $0 ": file names are lower snake case"
    if ($NF ~ /^(utils?|common|misc|helpers?)$/) print $0 ": name it after what it does"
}' | breach

# ---- length and width ----
grep -vE "$generated" "$work/sources" | while read -r file; do
    lines=$(wc -l < "$file")
    limit=600
    case $file in include/*) ;; *.h) limit=200 ;; esac
    # Inline code that several files compile, each for its instruction set, is a source.
    grep -q 'static inline' "$file" && limit=600
    [ "$lines" -le "$limit" ] || echo "$file: $lines lines, at most $limit"
done | breach
# 100 columns are the aim; a word that hangs over is left to judgement, a line that does is not.
grep -vE "$generated" "$work/sources" | xargs grep -nHE '^.{105,}' |
    sed 's/^\([^:]*:[0-9]*\):.*/\1: much wider than 100 columns/' | breach

# ---- nothing outside of the repository is named ----
find . \( -path ./.git -o -path ./build -o -path ./tests/data -o -path ./models \) -prune -o -type f -print |
    xargs grep -nIE '(^|[^A-Za-z0-9_.])/(work|home|root|opt|mnt|srv)/|\.\./[s]hared' |
    sed 's/$/   <- a path outside of the repository/' | breach

if [ -s "$work/breaches" ]; then
    cat "$work/breaches"
    echo "$(wc -l < "$work/breaches") breaches of the house's order"
    exit 1
fi
echo "$(wc -l < "$work/sources") sources in order"

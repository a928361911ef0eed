#!/bin/sh
# The manual and the completions know every command and option of the program, and no others.
# manual.sh QUERN
set -eu
quern=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bad=0
complain() { echo "manual: $*"; bad=1; }

# In roff a dash is written \-.
sed 's/\\-/-/g' man/quern.1 > "$work/page"
"$quern" help --options > "$work/options"
[ -s "$work/options" ] || complain "quern help --options says nothing"
for command in $(cut -d ' ' -f 1 "$work/options" | sort -u); do
    grep -q "^\.SS quern $command\$" "$work/page" || complain "man/quern.1 has no section for $command"
done
for command in $(sed -n 's/^\.SS quern //p' "$work/page"); do
    grep -q "^$command " "$work/options" || complain "man/quern.1 describes $command, which is not there"
done
# An option belongs into its command's section or into a shared one (.SH ... OPTIONS).
awk '{print $1, $2}' "$work/options" | sort -u | while read -r command option; do
    awk -v command="$command" '
        /^\.SH/ { shared = /OPTIONS/; inside = 0 }
        /^\.SS/ { inside = $0 == ".SS quern " command }
        shared || inside' "$work/page" |
        grep -qE -e "(^|[^a-z-])$option([^a-z-]|\$)" || echo "man/quern.1: $command: $option is missing"
done > "$work/missing"
[ ! -s "$work/missing" ] || { cat "$work/missing"; bad=1; }
# What a tagged paragraph (.TP, .TQ) is about has to exist.
awk 'tag && match($0, /--[a-z0-9-]+/) { print substr($0, RSTART, RLENGTH) } { tag = /^\.T[PQ]/ }' \
    "$work/page" | sort -u | while read -r option; do
    awk '{print $2}' "$work/options" | grep -qx -e "$option" || [ "$option" = --version ] ||
        echo "man/quern.1: $option is no option"
done > "$work/invented"
[ ! -s "$work/invented" ] || { cat "$work/invented"; bad=1; }

sh tools/completions.sh "$quern" "$work/completions"
for file in quern.bash _quern quern.fish; do
    cmp -s "$work/completions/$file" "completions/$file" ||
        complain "completions/$file is not what the program says now (make completions)"
done
bash -n completions/quern.bash || complain "completions/quern.bash has an error"
# The completion at work, in a shell without bash-completion.
try() { # words ... -> candidates
    bash -c '. completions/quern.bash; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _quern; printf "%s\n" "${COMPREPLY[@]}"' bash "$@"
}
try quern ins | grep -qx inspect || complain "bash does not complete ins"
try quern run m --prec | grep -qx -e --precision || complain "bash does not complete --prec"
try quern run m --precision ex | grep -qx exact || complain "bash does not complete a choice"
try quern run m --precision = f | grep -qx fast || complain "bash does not complete after ="

if command -v groff > /dev/null; then
    for page in man/quern.1 man/quern.3; do
        warnings=$(groff -man -Tutf8 -ww -z "$page" 2>&1)
        [ -z "$warnings" ] || complain "$page: $warnings"
    done
fi
[ "$bad" = 0 ] && echo "manual and completions know what the program knows"
exit "$bad"

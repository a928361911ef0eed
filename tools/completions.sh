#!/bin/sh
# Writes the shells' completion files from what the program says about itself (quern help --json),
# so that they cannot differ. completions.sh [QUERN] [FOLDER]; the test writes elsewhere and compares.
set -eu
cd "$(dirname "$0")/.."
quern=${1:-build/release/quern}
out=${2:-completions}
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# One line per command "C name summary" and per option "O command name letter value help", tabs
# between. Reads the indented JSON, one key a line.
"$quern" help --json | awk '
function text(line) {
    sub(/^[^:]*: "/, "", line)
    sub(/",?$/, "", line)
    gsub(/\\"/, "\"", line)
    gsub(/\\\\/, "\\", line)
    return line
}
/"options": \[/ { in_options = 1; print "C\t" command "\t" summary; next }
in_options && /^ *\]/ { in_options = 0; next }
!in_options && /"name":/ { command = text($0) }
!in_options && /"summary":/ { summary = text($0) }
in_options && /^ *\{$/ { name = letter = value = help = "" }
in_options && /"name":/ { name = text($0) }
in_options && /"letter":/ { letter = text($0) }
in_options && /"value":/ { value = text($0) }
in_options && /"help":/ { help = text($0) }
in_options && /^ *\},?$/ { print "O\t" command "\t" name "\t" letter "\t" value "\t" help }
' > "$work/list"
[ -s "$work/list" ] || { echo "completions: $quern help --json says nothing" >&2; exit 1; }

note="written by tools/completions.sh from 'quern help --json'"

# ---- bash ----
awk -F '\t' -v note="$note" '
function words(value) { gsub(/\|/, " ", value); return value }
$1 == "C" { commands = commands " " $2; order[++n] = $2 }
$1 == "O" {
    options[$2] = options[$2] " --" $3 ($4 ? " -" $4 : "")
    spelling = "--" $3 ($4 ? "|-" $4 : "")
    if ($5 == "" || seen[spelling]++) next
    if ($5 ~ /\|/) choice = choice "        " spelling ") choices=\"" words($5) "\" ;;\n"
    else if ($5 ~ /FILE|DUMP/) files = files (files ? "|" : "") spelling
    else plain = plain (plain ? "|" : "") spelling
}
END {
    print "# bash completion for quern; " note
    print "_quern() {"
    print "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}"
    print "    local command= options= choices= i"
    print "    local commands=\"" substr(commands, 2) "\""
    print "    for ((i = 1; i < COMP_CWORD; i++)); do"
    print "        case \" $commands \" in *\" ${COMP_WORDS[i]} \"*) command=${COMP_WORDS[i]}; break ;; esac"
    print "    done"
    print "    # --name=value arrives in three words"
    print "    [[ $cur == = ]] && cur= || { [[ $prev == = ]] && prev=${COMP_WORDS[COMP_CWORD-2]}; }"
    print "    case $prev in"
    printf "%s", choice
    if (files) print "        " files ") mapfile -t COMPREPLY < <(compgen -f -- \"$cur\"); return ;;"
    if (plain) print "        " plain ") return ;;"
    print "    esac"
    print "    if [[ -n $choices ]]; then"
    print "        mapfile -t COMPREPLY < <(compgen -W \"$choices\" -- \"$cur\")"
    print "        return"
    print "    fi"
    print "    case $command in"
    for (i = 1; i <= n; i++)
        print "        " order[i] ") options=\"" substr(options[order[i]], 2) "\" ;;"
    print "    esac"
    print "    if [[ $cur == -* ]]; then"
    print "        [[ -z $command ]] && options=\"--help --version\""
    print "        mapfile -t COMPREPLY < <(compgen -W \"$options\" -- \"$cur\")"
    print "    elif [[ -z $command || $command == help ]]; then"
    print "        mapfile -t COMPREPLY < <(compgen -W \"$commands\" -- \"$cur\")"
    print "    else"
    print "        mapfile -t COMPREPLY < <(compgen -f -- \"$cur\")"
    print "    fi"
    print "}"
    print "complete -o filenames -F _quern quern"
}' "$work/list" > "$work/quern.bash"

# ---- zsh ----
awk -F '\t' -v note="$note" -v q="'" '
function safe(s) { gsub(q, q "\\" q q, s); gsub(/\[/, "(", s); gsub(/\]/, ")", s); gsub(/:/, "\\:", s); return s }
function argument(value) {
    if (value == "") return ""
    if (value ~ /\|/) { gsub(/\|/, " ", value); return ":value:(" value ")" }
    if (value ~ /FILE|DUMP/) return ":" value ":_files"
    return ":" value ":"
}
$1 == "C" { name[++n] = $2; summary[n] = $3 }
$1 == "O" {
    tail = "[" safe($6) "]" argument($5) q
    # Repeating is allowed: the program says which options may not be.
    spec[$2] = spec[$2] " \\\n                " q "*--" $3 tail
    if ($4) spec[$2] = spec[$2] " \\\n                " q "*-" $4 tail
}
END {
    print "#compdef quern"
    print "# zsh completion for quern; " note
    print "_quern() {"
    print "    local state line"
    print "    local -a commands"
    print "    commands=("
    for (i = 1; i <= n; i++) print "        " q name[i] ":" safe(summary[i]) q
    print "    )"
    print "    _arguments -C " q "(- *)--version[version]" q " " q "(- *)--help[overview]" q " \\"
    print "        " q "1:command:->command" q " " q "*::argument:->arguments" q
    print "    case $state in"
    print "    command) _describe command commands ;;"
    print "    arguments)"
    print "        case $words[1] in"
    for (i = 1; i <= n; i++) {
        last = name[i] == "help" ? "1:command:(" all() ")" : "*:argument:_files"
        print "        " name[i] ") _arguments" spec[name[i]] " \\\n                " q last q " ;;"
    }
    print "        esac ;;"
    print "    esac"
    print "}"
    print "_quern \"$@\""
}
function all(   s, j) { for (j = 1; j <= n; j++) s = s (j > 1 ? " " : "") name[j]; return s }
' "$work/list" > "$work/_quern"

# ---- fish ----
awk -F '\t' -v note="$note" -v q="'" '
function safe(s) { gsub(/\\/, "\\\\", s); gsub(q, "\\" q, s); return q s q }
BEGIN { print "# fish completion for quern; " note }
$1 == "C" {
    print "complete -c quern -n __fish_use_subcommand -f -a " $2 " -d " safe($3)
    names = names " " $2
}
$1 == "O" {
    line = "complete -c quern -n " q "__fish_seen_subcommand_from " $2 q " -l " $3
    if ($4) line = line " -s " $4
    choices = $5
    if (gsub(/\|/, " ", choices)) line = line " -x -a " q choices q
    else if ($5 ~ /FILE|DUMP/) line = line " -r -F"
    else if ($5 != "") line = line " -x"
    print line " -d " safe($6)
}
END { print "complete -c quern -n " q "__fish_seen_subcommand_from help" q " -f -a " q substr(names, 2) q }
' "$work/list" > "$work/quern.fish"

cp "$work/quern.bash" "$work/_quern" "$work/quern.fish" "$out/"

#!/bin/sh
# Writes the report page's style and script as C, with the hashes that the page's security policy
# names. From the repository root: sh web/report/embed.sh > src/quant/html_report_assets.c
set -eu
here=$(dirname "$0")

raw_hash() { sha256sum "$1" | cut -d ' ' -f 1; }
octal() { # hexadecimal to \ooo, which every shell's printf knows
    printf '%s' "$1" | fold -w 2 | while read -r h || [ -n "$h" ]; do printf '\\%03o' "0x$h"; done
}
embed() {
    printf '\nconst char qn_html_report_%s[] =\n' "$1"
    awk '
        function piece(s, tail) {
            gsub(/\\/, "\\\\&", s)
            gsub(/"/, "\\\"", s)
            return "    \"" s tail "\""
        }
        {
            for (; length($0) > 80; $0 = substr($0, 81)) print piece(substr($0, 1, 80), "")
            print piece($0, "\\n")
        }' "$here/report.$1" | sed '$s/$/;/'
    # shellcheck disable=SC2059
    printf 'const char qn_html_report_%s_hash[] =\n    "sha256-%s";\n' "$1" \
        "$(printf "$(octal "$(raw_hash "$here/report.$1")")" | base64)"
}

echo "// Written by web/report/embed.sh from web/report/report.css and report.js: change those."
echo '#include "quant/html_report_parts.h"'
embed css
embed js

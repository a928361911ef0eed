#!/bin/sh
# The check of the rooms sees what it should: a small tree with one breach of each kind.
set -u
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
mkdir -p "$tree/tools" "$tree/include" "$tree/tests" "$tree/examples" "$tree/bench"
cp tools/check_rooms.sh "$tree/tools/"
for room in base text kernel store model cli attic; do mkdir -p "$tree/src/$room"; done
put() { cat > "$tree/$1"; }
put include/quern.h < /dev/null
echo '#include "store/shelf.h"' | put src/base/low.c
echo '#include "kernel/leaf.h"' | put src/text/side.c
echo '#include "model/plan.h"' | put src/cli/deep.c
echo '#include "base/../base/low.h"' | put src/text/dots.c
echo '#include "base/low.c"' | put src/text/body.c
echo '#include <quern.h>' | put src/text/angle.c
echo '#include "cellar/x.h"' | put src/text/nowhere.c
echo 'int x;' | put src/attic/homeless.c
echo '#include "base/low.h"' | put src/attic/homeless.c
echo 'some_type *lonely(void);' | put src/store/shelf.h
echo 'int twice;' | put src/store/twice.c
echo 'int twice;' | put src/model/twice.c
echo 'int u;' | put src/model/utils.c
echo 'int u;' | put src/model/CamelCase.c
yes 'int longer;' | head -n 601 | put src/model/endless.c
yes '//' | head -n 201 | put src/model/endless_head.h
printf '// %0110d\n' 7 | put src/model/wide.c
printf '// %s\n' "$(yes 量 | head -n 90 | tr -d '\n')" | put src/model/wide_but_not.c
printf 'see /%s/somebody/notes\n' home | put README.md
echo '#include "base/low.h"' | put src/model/good.c

"$tree/tools/check_rooms.sh" "${1:-cc}" > "$tree/said" && { echo "breaches: nothing was found"; exit 1; }
bad=0
expect() { grep -qF -e "$1" "$tree/said" || { echo "breaches: not found: $1"; bad=1; }; }
expect 'src/base/low.c:1: base (floor 0) includes store/shelf.h (floor 2)'
expect 'src/text/side.c:1: text (floor 1) includes kernel/leaf.h (floor 1)'
expect 'src/cli/deep.c:1: cli is a program over the library'
expect 'src/text/dots.c:1: includes base/../base/low.h: paths start in src/'
expect 'src/text/body.c:1: includes the .c file base/low.c'
expect 'src/text/angle.c:1: write "quern.h"'
expect 'src/text/nowhere.c:1: includes cellar/x.h: no such room'
expect 'src/attic/homeless.c:1: room attic has no floor'
expect 'src/store/shelf.h: does not compile alone'
expect 'one name, two places'
expect 'src/model/utils: name it after what it does'
expect 'src/model/CamelCase: file names are lower snake case'
expect 'src/model/endless.c: 601 lines, at most 600'
expect 'src/model/endless_head.h: 201 lines, at most 200'
expect 'src/model/wide.c:1: much wider than 100 columns'
expect 'a path outside of the repository'
if grep -E 'wide_but_not|good\.c' "$tree/said"; then echo "breaches: false alarm"; bad=1; fi
[ "$bad" = 0 ] && echo "every kind of breach is seen" || cat "$tree/said"
exit "$bad"

#!/bin/sh
# Installs into an empty root and uses what is there as a stranger would: the example is built with
# pkg-config and with CMake, shared and static, and answers a known question; only the declared
# symbols are visible. install.sh BUILD_FOLDER CMAKE COMPILER
set -eu
build=$1 cmake=$2 cc=$3
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
fail() { echo "install: $*" >&2; exit 1; }

DESTDIR=$root "$cmake" --install "$build" > "$root/log" 2>&1 || { cat "$root/log"; fail "cmake --install"; }
prefix=$root$(sed -n 's/^CMAKE_INSTALL_PREFIX:PATH=//p' "$build/CMakeCache.txt")
lib=$(dirname "$(find "$root" -name quern.pc)")
libdir=$(dirname "$lib")

for path in bin/quern include/quern.h share/man/man1/quern.1 share/man/man3/quern.3 \
    share/bash-completion/completions/quern share/zsh/site-functions/_quern \
    share/fish/vendor_completions.d/quern.fish share/doc/quern/README.md share/doc/quern/LICENSE \
    share/doc/quern/examples/answer.c; do
    [ -s "$prefix/$path" ] || fail "$path is not installed"
done
for file in libquern.so libquern.so.0 libquern.a cmake/quern/quernConfig.cmake; do
    [ -e "$libdir/$file" ] || fail "$file is not installed"
done

# ---- the library's face ----
readelf -d "$libdir/libquern.so" | grep -q 'SONAME.*\[libquern\.so\.0\]' || fail "wrong SONAME"
nm -D --defined-only "$libdir/libquern.so" | awk '$2 ~ /[TDBRV]/ {print $3}' | sort > "$root/visible"
grep -oE '\bqn_[a-z0-9_]+\(' include/quern.h | tr -d '(' | sort -u > "$root/declared"
hidden=$(comm -23 "$root/visible" "$root/declared")
[ -z "$hidden" ] || fail "visible but not in quern.h:" $hidden
grep -E '^QN_API' include/quern.h | grep -oE '\bqn_[a-z0-9_]+\(' | tr -d '(' | sort -u > "$root/api"
absent=$(comm -13 "$root/visible" "$root/api")
[ -z "$absent" ] || fail "in quern.h but not in the library:" $absent
"$cc" -std=c99 -Wall -Wextra -Wpedantic -Werror -fsyntax-only -x c "$prefix/include/quern.h"
if command -v c++ > /dev/null; then
    c++ -std=c++11 -Wall -Wextra -Werror -fsyntax-only -x c++ "$prefix/include/quern.h" ||
        fail "quern.h is no C++"
fi

# ---- a stranger's program ----
model=models/tiny-qwen3
question="What is the capital of France?"
answers() { # a program that must know the answer
    said=$(LD_LIBRARY_PATH=$libdir "$1" "$model" "$question") || fail "$1 failed"
    case $said in
    *"The capital of France is Paris."*) ;;
    *) fail "$1 said: $said" ;;
    esac
}

export PKG_CONFIG_PATH="$lib"
example=$prefix/share/doc/quern/examples
"$cc" -std=c17 -Wall -Wextra -Werror -o "$root/shared" "$example/answer.c" $(pkg-config --cflags --libs quern)
answers "$root/shared"
"$cc" -std=c17 -o "$root/static" "$example/answer.c" $(pkg-config --cflags quern) \
    -Wl,-Bstatic -L"$libdir" -lquern -Wl,-Bdynamic \
    $(pkg-config --static --libs quern | sed 's/-lquern//')
answers "$root/static"

"$cmake" -S "$example" -B "$root/example" -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_C_COMPILER="$cc" \
    > "$root/log" 2>&1 && "$cmake" --build "$root/example" >> "$root/log" 2>&1 ||
    { cat "$root/log"; fail "the example does not build with find_package(quern)"; }
answers "$root/example/answer"
answers "$root/example/answer_static"
echo "installed, built against, answered"

#!/bin/sh
# Installs the Debian packages that building and testing quern needs, and only those that are
# missing. This list is the only one. With --list it prints the list, with --check it installs
# nothing and tells what is missing.
set -eu

packages="
gcc libc6-dev make cmake pkg-config
libjansson-dev libpcre2-dev libedit-dev libpng-dev libjpeg62-turbo-dev libwebp-dev
libzip-dev
libcmocka-dev xz-utils
"

say() { echo "deps: $*" >&2; }

# Elsewhere than on Debian: enough that the build finds what it looks for.
present_without_dpkg() {
    for tool in cc make cmake pkg-config; do
        command -v "$tool" > /dev/null 2>&1 || return 1
    done
    pkg-config --exists jansson libpcre2-8 libedit libpng libjpeg libwebp libzip cmocka
}

missing() {
    for p in $packages; do
        state=$(dpkg-query -W -f '${db:Status-Status}' "$p" 2> /dev/null || true)
        [ "$state" = installed ] || printf '%s ' "$p"
    done
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo > /dev/null 2>&1; then
        sudo "$@"
    else
        say "installing needs root: run 'make deps' as root, or install sudo"
        exit 1
    fi
}

# Quiet when all goes well; on failure the whole log.
quietly() {
    log=$(mktemp)
    if as_root "$@" > "$log" 2>&1; then
        rm -f "$log"
        return 0
    fi
    cat "$log" >&2
    rm -f "$log"
    return 1
}

install_them() {
    quietly env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"
}

# A package the lists do not offer means that the lists are absent or old.
known() {
    for p in "$@"; do
        apt-cache policy "$p" 2> /dev/null | grep -q 'Candidate: [^(]' || return 1
    done
}

case "${1:-}" in
--list)
    echo $packages
    exit 0
    ;;
esac

if ! command -v dpkg-query > /dev/null 2>&1 || ! command -v apt-get > /dev/null 2>&1; then
    present_without_dpkg && exit 0
    say "no Debian package manager (dpkg, apt-get) here; install what these packages hold:" $packages
    exit 1
fi

wanted=$(missing)
[ -z "$wanted" ] && exit 0
if [ "${1:-}" = --check ]; then
    say "missing: $wanted"
    exit 1
fi

say "installing $wanted"
if ! known $wanted; then
    quietly apt-get update -q || { say "apt-get update failed"; exit 1; }
    install_them $wanted || { say "apt-get install failed"; exit 1; }
# The lists may be older than the archive: look again once before giving up.
elif ! install_them $wanted 2> /dev/null; then
    quietly apt-get update -q || { say "apt-get update failed"; exit 1; }
    install_them $wanted || { say "apt-get install failed"; exit 1; }
fi

#!/bin/sh
# Proof that a plain clone works on a bare Debian 12: makes a root file system with nothing but
# Debian's essential packages, git and make, clones this repository into it, and runs there what
# is asked for. Needs root, mmdebstrap and the host's own package sources.
#   pristine.sh [TARGET...]          (default: demo test)
#   PRISTINE_ROOT=/path              keep the root there and use it again
#   PRISTINE_MIRROR="deb http://... bookworm main"   instead of the host's sources
set -eu
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "pristine: needs root" >&2; exit 1; }
command -v mmdebstrap > /dev/null || { echo "pristine: mmdebstrap is missing" >&2; exit 1; }
[ $# -gt 0 ] || set -- demo test

keep=${PRISTINE_ROOT:-}
root=${keep:-$(mktemp -d "${TMPDIR:-/var/tmp}/quern-pristine.XXXXXX")}
finish() {
    for mounted in proc dev/pts dev/null dev/urandom; do umount "$root/$mounted" 2> /dev/null || true; done
    [ -n "$keep" ] || rm -rf --one-file-system "$root"
}
trap finish EXIT

# The sources of the host that are Debian's own: one-line or deb822, bookworm only.
host_sources() {
    for f in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
        [ ! -f "$f" ] || grep -hE '^deb .*bookworm' "$f" || true
    done
    for f in /etc/apt/sources.list.d/*.sources; do
        [ ! -f "$f" ] || awk -v RS= '/bookworm/ && /Types:[^\n]*deb/' "$f" |
            sed 's/^\(Suites\|URIs\|Types\|Components\): */\1 /' |
            awk '$1 == "URIs" { uri = $2 }
                 $1 == "Suites" { n = split($0, suite, " ") }
                 $1 == "Components" { $1 = ""; for (i = 2; i <= n; i++) print "deb", uri, suite[i] $0 }'
    done | grep -v -e cloud-sdk -e nodistro
}

if [ ! -x "$root/usr/bin/git" ]; then
    sources=${PRISTINE_MIRROR:-$(host_sources)}
    echo "pristine: making a bare Debian 12"
    printf '%s\n' "$sources" | mmdebstrap --quiet --variant=minbase --include=git,make,ca-certificates \
        --skip=check/empty --format=directory bookworm "$root" -
fi
# Answers to name look-ups and certificates are the host's; so are proxy settings.
cp /etc/resolv.conf "$root/etc/resolv.conf" 2> /dev/null || true
cp /etc/hosts "$root/etc/hosts" 2> /dev/null || true
for setting in /etc/apt/apt.conf.d/*proxy*; do
    [ ! -f "$setting" ] || cp "$setting" "$root/etc/apt/apt.conf.d/"
done
mount -t proc proc "$root/proc" 2> /dev/null || echo "pristine: no /proc in the root"
mkdir -p "$root/dev/pts" # terminals, for the tests of chat
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts "$root/dev/pts" 2> /dev/null &&
    ln -sf pts/ptmx "$root/dev/ptmx" || echo "pristine: no terminals in the root"
for device in null urandom; do
    [ -c "$root/dev/$device" ] || { : > "$root/dev/$device"; mount --bind "/dev/$device" "$root/dev/$device"; }
done

echo "pristine: cloning $(git rev-parse --short HEAD)"
rm -rf "$root/quern"
git clone --quiet --no-local . "$root/quern"
for target in "$@"; do
    echo "pristine: make $target"
    began=$(date +%s)
    env -i HOME=/ PATH=/usr/sbin:/usr/bin:/sbin:/bin ${http_proxy:+http_proxy=$http_proxy} \
        ${https_proxy:+https_proxy=$https_proxy} chroot "$root" make -C /quern "$target"
    echo "pristine: make $target took $(($(date +%s) - began)) s"
done
echo "pristine: done"

#!/bin/bash
# Runs ./quickstart on a fresh Debian in a chroot, from a clone of this tree's
# last commit:
#
#   tests/debian/run.sh RELEASE [USER] [check]
#
#   RELEASE  bookworm or trixie
#   USER     root (the default), or user: an ordinary user with sudo
#   check    ./check afterwards
#
# Needs root and debootstrap; not part of ./check. The mirror is the one that
# apt of this machine is configured with. A bare system of each release is kept
# in the cache folder and unpacked anew for each run. MODELS=host lends it this
# machine's model files, so that they are not fetched once more.
set -eu -o pipefail

top=$(cd "$(dirname "$0")/../.." && pwd)
release=${1:-}
as=${2:-root}
what=${3:-}
. "$top/tests/debian/base.sh"


add_user()
{
    [ "$as" = user ] || return 0
    chroot "$root" useradd -m -s /bin/bash user
    echo 'user ALL=(ALL) NOPASSWD: ALL' > "$root/etc/sudoers.d/user"
}


lend_models()
{
    local dir

    [ "${MODELS:-}" = host ] || return 0
    dir=$root$(home)/.cache/nginx-infer
    mkdir -p "$dir"
    cp -rL "$cache"/smollm2.gguf "$cache"/gemma3.gguf "$cache"/minilm "$dir" \
        2> /dev/null || true
    chroot "$root" chown -R "$as:" "$(home)/.cache"
}


case $release:$as in
    bookworm:root|bookworm:user|trixie:root|trixie:user) ;;
    *) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 2 ;;
esac
begin_root
add_user
lend_models
clone

begin=$SECONDS
inside 'cd nginx-infer; ./quickstart; ./quickstart; ./quickstart stop'
echo "$release as $as: quickstart twice, stop: $((SECONDS - begin)) s"
if [ "$what" = check ]; then
    begin=$SECONDS
    inside 'cd nginx-infer; ./check'
    echo "$release as $as: check: $((SECONDS - begin)) s"
fi

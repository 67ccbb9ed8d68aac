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
cache=${XDG_CACHE_HOME:-$HOME/.cache}/nginx-infer
release=${1:-}
as=${2:-root}
what=${3:-}
base=$cache/debian-$release.tar
root=


die()
{
    echo "run.sh: $*" >&2
    exit 1
}


mirror_of()
{
    apt-get indextargets --format '$(LABEL)|$(REPO_URI)' \
        'Created-By: Packages' 'Origin: Debian' \
        | sed -n "s/^$1|//p" | sort -u | head -n 1
}


make_base()
{
    local dir mirror

    [ ! -e "$base" ] || return 0
    mirror=$(mirror_of Debian)
    [ -n "$mirror" ] || die "apt has no Debian mirror configured"
    echo "Making a bare $release"
    dir=$(mktemp -d)
    debootstrap --variant=minbase --include=git,sudo,ca-certificates \
        "$release" "$dir" "$mirror" > "$base.log" 2>&1 \
        || { tail -n 5 "$base.log" >&2; rm -rf "$dir"
             die "debootstrap failed, see $base.log"; }
    add_security "$dir"
    tar -C "$dir" -cf "$base.new" .
    rm -rf "$dir"
    mv "$base.new" "$base"
}


add_security()
{
    local mirror

    mirror=$(mirror_of Debian-Security)
    [ -z "$mirror" ] || echo "deb $mirror $release-security main" \
        >> "$1/etc/apt/sources.list"
}


# What this machine needs to reach the network, the fresh one needs as well.
lend_network()
{
    cp /etc/resolv.conf "$root/etc/resolv.conf"
    if [ -r /etc/ssl/certs/ca-certificates.crt ]; then
        ca=/opt/host-ca.crt
        cp /etc/ssl/certs/ca-certificates.crt "$root$ca"
    fi
    apt-config dump | grep -i '^acquire::.*proxy' \
        > "$root/etc/apt/apt.conf.d/90host" || true
}


add_user()
{
    [ "$as" = user ] || return 0
    chroot "$root" useradd -m -s /bin/bash user
    echo 'user ALL=(ALL) NOPASSWD: ALL' > "$root/etc/sudoers.d/user"
}


home()
{
    case $as in
        root) echo /"$as" ;;
        *)    echo /home/"$as" ;;
    esac
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


free_port()
{
    python3 -c 'import socket
s = socket.socket()
s.bind(("127.0.0.1", 0))
print(s.getsockname()[1])'
}


clone()
{
    git clone -q --bare "$top" "$root/opt/source.git"
    # /proc, /dev and a process namespace of its own: what is left over when
    # the script ends is killed with the namespace.
    inside 'git config --global --add safe.directory "*"
            git clone -q /opt/source.git nginx-infer'
}


inside()
{
    env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        HOME="$(home)" LC_ALL=C.UTF-8 PORT="$port" CI=true \
        PIP_CERT="$ca" http_proxy="${http_proxy:-}" \
        https_proxy="${https_proxy:-}" \
        unshare --mount --pid --fork --kill-child sh -c '
            mount -t proc proc "$1/proc"
            mount -t sysfs -o ro sys "$1/sys"
            mount --rbind /dev "$1/dev"
            exec chroot --userspec="$2" "$1" sh -ec "cd \$HOME; $3"' \
        sh "$root" "$as" "$1" < /dev/null
}


case $release:$as in
    bookworm:root|bookworm:user|trixie:root|trixie:user) ;;
    *) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 2 ;;
esac
[ "$(id -u)" -eq 0 ] || die "needs root for chroot"
command -v debootstrap > /dev/null || die "install the package debootstrap"

mkdir -p "$cache"
make_base
root=$(mktemp -d)
trap 'rm -rf --one-file-system "$root"' EXIT
tar -C "$root" -xf "$base"
chmod 755 "$root"
ca=
port=$(free_port)
lend_network
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

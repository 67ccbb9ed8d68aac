# Shared by run.sh and deb.sh: a bare Debian in a chroot.  Sourced; the caller
# has set `top` (the repository), `release` (bookworm or trixie), `as` (root or
# user) and `set -eu`.

cache=${XDG_CACHE_HOME:-$HOME/.cache}/nginx-infer
base=$cache/debian-$release.tar
root=
ca=
port=
wrap=           # a command that runs what is run inside


die()
{
    echo "${0##*/}: $*" >&2
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


home()
{
    case $as in
        root) echo /"$as" ;;
        *)    echo /home/"$as" ;;
    esac
}


free_port()
{
    python3 -c 'import socket
s = socket.socket()
s.bind(("127.0.0.1", 0))
print(s.getsockname()[1])'
}


# begin_root: a fresh system in $root, removed when the script ends.
begin_root()
{
    [ "$(id -u)" -eq 0 ] || die "needs root for chroot"
    command -v debootstrap > /dev/null || die "install the package debootstrap"

    mkdir -p "$cache"
    make_base
    root=$(mktemp -d)
    trap 'rm -rf --one-file-system "$root"' EXIT
    tar -C "$root" -xf "$base"
    chmod 755 "$root"
    port=$(free_port)
    lend_network
}


# inside COMMANDS: /proc, /dev and a process namespace of its own: what is left
# over when they end is killed with the namespace.
inside()
{
    $wrap env -i \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
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


clone()
{
    git clone -q --bare "$top" "$root/opt/source.git"
    inside 'git config --global --add safe.directory "*"
            git clone -q /opt/source.git nginx-infer'
}

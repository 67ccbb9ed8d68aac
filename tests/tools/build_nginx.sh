#!/bin/bash
# Builds an nginx with ASan and UBSan for the tests and prints its path.
#
# The source is that of the installed Debian package (its upstream tarball, by
# apt-get from the configured mirrors); NGINX_SRC=TREE takes a tree instead.
# nginx's own pools are then plain allocations (NGX_DEBUG_PALLOC), so that an
# overrun inside a pool is seen. The result is kept in the cache folder; where
# no source is to be had the script says so and ends with status 77.
set -eu

NGINX_SRC=${NGINX_SRC:-}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/nginx-infer
log=$cache/build-nginx.log


skip()
{
    echo "build_nginx.sh: $*" >&2
    exit 77
}


# Source indexes are rarely configured: the same mirrors are asked for them,
# by files of our own, so that the system's lists stay as they are.
apt_source()
{
    local dir=$1 version=$2 list parts=$1/parts

    mkdir -p "$parts" "$dir/lists/partial"
    for list in /etc/apt/sources.list.d/*.sources; do
        [ -r "$list" ] || continue
        grep -q '^Suites:.*\(bookworm\|trixie\|sid\|testing\|stable\)' \
            "$list" || continue
        sed 's/^Types:.*/Types: deb-src/' "$list" > "$parts/${list##*/}"
    done
    if [ -s /etc/apt/sources.list ]; then
        sed -n 's/^deb /deb-src /p' /etc/apt/sources.list \
            > "$parts/main.list"
    fi

    set -- -o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$parts" \
        -o "Dir::State::lists=$dir/lists" -o APT::Sandbox::User=root
    apt-get "$@" -q update || return 1
    (cd "$dir" && apt-get "$@" -q --download-only --tar-only source \
        "nginx=$version")
}


# The tarball of the upstream version is enough: Debian's patches do not touch
# what a module can see.
fetch_tree()
{
    local version tarball

    version=$(dpkg-query -W -f '${Version}' nginx 2>/dev/null) \
        || skip "the package nginx is not installed"
    [ "${version%%-*}" = "$upstream" ] \
        || skip "the nginx in PATH is not the packaged one"
    apt_source "$work" "$version" >> "$log" 2>&1 \
        || skip "no nginx source from the configured mirrors, see $log"
    tarball=$(ls "$work"/nginx_*.orig.tar.gz)
    mkdir "$work/tree"
    tar -xzf "$tarball" -C "$work/tree" --strip-components=1
}


build()
{
    local san='-fsanitize=address,undefined -fno-sanitize-recover=undefined'

    # nginx does unaligned and null-plus-zero arithmetic of its own that it
    # knows about; those two checks would only speak of nginx.
    san="$san -fno-sanitize=alignment,pointer-overflow,nonnull-attribute"
    san="$san,shift"
    (cd "$work/tree" && ASAN_OPTIONS=detect_leaks=0 "$configure" \
        --prefix="$work/prefix" --with-compat --with-debug --with-threads \
        --with-http_ssl_module --with-http_v2_module \
        --with-http_realip_module --with-http_auth_request_module \
        --with-http_stub_status_module --with-http_addition_module \
        --with-cc-opt="-O1 -g -DNGX_DEBUG_PALLOC=1 -fno-omit-frame-pointer \
            -Wno-error $san" --with-ld-opt="$san") >> "$log" 2>&1 \
        || skip "configure failed, see $log"
    ASAN_OPTIONS=detect_leaks=0 make -C "$work/tree" -j "$(nproc)" \
        >> "$log" 2>&1 || skip "nginx did not build, see $log"
}


mkdir -p "$cache"
if [ -n "$NGINX_SRC" ]; then
    upstream=$(sed -n 's/.*NGINX_VERSION *"\(.*\)"/\1/p' \
        "$NGINX_SRC/src/core/nginx.h")
else
    upstream=$(nginx -v 2>&1 | sed -n 's,.*nginx/\([0-9.]*\).*,\1,p')
fi
[ -n "$upstream" ] || skip "no nginx found"

result=$cache/nginx-$upstream-asan
if [ ! -x "$result" ]; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    : > "$log"
    if [ -n "$NGINX_SRC" ]; then
        cp -rL "$NGINX_SRC/." "$work/tree"
    else
        fetch_tree
    fi
    configure=./configure
    [ -x "$work/tree/configure" ] || configure=./auto/configure
    build
    cp "$work/tree/objs/nginx" "$result.new"
    mv -f "$result.new" "$result"
fi
echo "$result"

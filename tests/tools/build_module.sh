#!/bin/bash
# Builds the nginx module as OUT/ngx_http_infer_module.so; called by make.
#
# Reads from the environment:
#   OUT        folder of the build (required)
#   CC         compiler, gcc by default
#   SANFLAGS   sanitizer flags; empty means a release build
#   LTO        flags of link-time optimisation; empty means none
#   NGINX_SRC  an nginx source tree; empty means Debian's nginx-dev
#
# nginx's configure writes into the tree it runs in, so it runs in a copy under
# OUT and the original may be read-only. It runs again only when something that
# it looks at has changed; else only make runs.
set -eu

top=$(cd "$(dirname "$0")/../.." && pwd)
dev_tree=/usr/share/nginx/src
so=ngx_http_infer_module.so
: "${OUT:?names the build folder}"
CC=${CC:-gcc}
SANFLAGS=${SANFLAGS:-}
LTO=${LTO:-}
NGINX_SRC=${NGINX_SRC:-}
tree=$OUT/nginx-tree
objs=$OUT/nginx-objs


die()
{
    echo "build_module.sh: $*" >&2
    exit 1
}


# Debian's tree brings the flags its own nginx was configured with; for any
# other tree --with-compat makes the module fit a binary of the same version.
find_tree()
{
    if [ -n "$NGINX_SRC" ]; then
        src=$(cd "$NGINX_SRC" 2>/dev/null && pwd) \
            || die "NGINX_SRC=$NGINX_SRC is not a folder"
        flags=(--with-compat --with-threads)
    else
        src=$dev_tree
        [ -r "$src/conf_flags" ] \
            || die "no nginx headers: install the package nginx-dev," \
                   "or name an nginx source tree by NGINX_SRC="
        . "$src/conf_flags"
        flags=("${NGX_CONF_FLAGS[@]}")
    fi

    configure=configure
    [ -x "$src/configure" ] || configure=auto/configure
    [ -x "$src/$configure" ] || die "$src has no configure script"
    header=$src/src/core/nginx.h
    [ -r "$header" ] || die "$src is not an nginx source tree"
}


# Everything but nginx's three tables stays out of the dynamic symbol table:
# nginx loads modules with RTLD_GLOBAL, so any other name could clash.
write_exports()
{
    cat > "$OUT/module.exports.new" <<'END'
{
    global: ngx_modules; ngx_module_names; ngx_module_order;
    local: *;
};
END
    if ! cmp -s "$OUT/module.exports.new" "$OUT/module.exports"; then
        mv "$OUT/module.exports.new" "$OUT/module.exports"
    fi
    rm -f "$OUT/module.exports.new"
}


# nginx's configure compiles with what CFLAGS has in the environment; where
# the code is made by the linker, its debug information must not name this
# folder either.
prefix_maps()
{
    tr ' ' '\n' <<< "${CFLAGS:-}" | grep -E '^-f(file|debug)-prefix-map=' \
        | tr '\n' ' ' || true
}


set_flags()
{
    cc_opt="-g -fPIC -fstack-protector-strong -Wformat"
    cc_opt="$cc_opt -Werror=format-security"
    ld_opt="-Wl,-z,relro -Wl,-z,now -Wl,--as-needed"
    ld_opt="$ld_opt -Wl,--version-script=$OUT/module.exports"

    if [ -n "$SANFLAGS" ]; then
        cc_opt="$cc_opt -O1 $SANFLAGS"
        ld_opt="$ld_opt $SANFLAGS"
    else
        cc_opt="$cc_opt -O2 -D_FORTIFY_SOURCE=2 $LTO"
        ld_opt="$ld_opt -O2 $LTO $(prefix_maps)"
    fi
}


fingerprint()
{
    echo "$src" "$CC" "$cc_opt" "$ld_opt" "${flags[@]}"
    cksum "$top/config" "$header"
    "$CC" --version | head -n 1
}


run_configure()
{
    rm -rf "$tree" "$objs"
    mkdir -p "$tree"
    cp -rL "$src/." "$tree/"
    chmod -R u+w "$tree"

    # A leak in one of configure's test programs would read as "not found".
    (cd "$tree" && ASAN_OPTIONS=detect_leaks=0 "./$configure" \
        "${flags[@]}" --with-cc="$CC" --with-cc-opt="$cc_opt" \
        --with-ld-opt="$ld_opt" --builddir="$objs" \
        --add-dynamic-module="$top") > "$OUT/nginx-configure.log" 2>&1 \
        || { tail -n 20 "$OUT/nginx-configure.log" >&2
             die "configure failed, see $OUT/nginx-configure.log"; }
    fingerprint > "$OUT/nginx-fingerprint"
}


# nginx's makefile knows only the headers that ./config lists; a newer header
# of ours rebuilds everything of ours, which takes seconds.
drop_stale_objects()
{
    [ -e "$objs/$so" ] || return 0

    if [ -n "$(find "$top/ngx_module" "$top/shm" -name '*.[h]*' \
               -newer "$objs/$so" 2>/dev/null)" ]; then
        rm -rf "$objs/addon/ngx_module" "$objs/addon/shm"
        mkdir -p "$objs/addon/ngx_module" "$objs/addon/shm"
    fi
}


# A running nginx has the old file mapped: it is replaced, never overwritten.
install_so()
{
    cp "$objs/$so" "$OUT/$so.new"
    mv -f "$OUT/$so.new" "$OUT/$so"
}


[ -r "$top/config" ] || die "$top/config is missing"
case $top in
    *[[:space:]]*)
        die "nginx cannot build a module in a folder with blanks: $top" ;;
esac

mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
tree=$OUT/nginx-tree
objs=$OUT/nginx-objs
find_tree
write_exports
set_flags

if [ "$(fingerprint)" != "$(cat "$OUT/nginx-fingerprint" 2>/dev/null)" ]; then
    run_configure
fi

drop_stale_objects
make -C "$tree" -f "$objs/Makefile" --no-print-directory modules
install_so

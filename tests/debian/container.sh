#!/bin/bash
# Carries out packaging/container/Containerfile step by step in chroots, for
# machines without a container builder, and runs what it made as a container
# would be run: as www-data, and with io_uring forbidden by a seccomp filter.
#
#   tests/debian/container.sh [RELEASE]
#
# RUN, COPY and WORKDIR are read from the file; what FROM, USER and ENTRYPOINT
# say is done here. Needs root and debootstrap; not part of ./check.
set -eu -o pipefail

top=$(cd "$(dirname "$0")/../.." && pwd)
release=${1:-bookworm}
as=root
. "$top/tests/debian/base.sh"

file=$top/packaging/container/Containerfile
models=${INFER_MODELS:-$cache}
example=$top/conf-examples/kubernetes/nginx-infer.yaml
out=$(mktemp)
built=
work=/


# Steps of the file's N-th FROM, one a line.
steps()
{
    sed -e ':a' -e '/\\$/{N;s/\\\n/ /;ba' -e '}' "$file" \
        | awk -v n="$1" '/^FROM /{k++; next} k == n && /^(RUN|COPY|WORKDIR) /'
}


# copy FOLDER SOURCE... DESTINATION
copy()
{
    local from=$1 to source
    shift

    to=${*: -1}
    [ "${to#/}" != "$to" ] || to=$work/$to
    for source in "${@:1:$#-1}"; do
        if [ -d "$from/$source" ]; then
            mkdir -p "$root$to"
            cp -a "$from/$source/." "$root$to"
        else
            mkdir -p "$root${to%/*}"
            cp -a "$from/$source" "$root$to"
        fi
    done
}


stage()
{
    local word rest

    work=/
    while read -r word rest; do
        echo "$word $rest" | cut -c 1-76
        case $word in
            WORKDIR) work=$rest; mkdir -p "$root$work" ;;
            COPY)
                case $rest in
                    --from=build\ *) copy "$built" ${rest#* } ;;
                    *)               copy "$top" $rest ;;
                esac ;;
            RUN) inside "cd $work; $rest" > "$out" 2>&1 \
                     || { tail -n 20 "$out"; exit 1; } ;;
        esac
    done < <(steps "$1")
}


configure()
{
    mkdir -p "$root/etc/nginx-infer" "$root/var/lib/models" \
        "$root/home/www-data"
    cp -L "$models/smollm2.gguf" "$root/var/lib/models"
    sed -n '/^  nginx.conf: |/,/^---/p' "$example" | sed -e '1d' -e '/^---/d' \
        -e 's/^    //' -e "s/listen  8080;/listen  127.0.0.1:$port;/" \
        > "$root/etc/nginx-infer/nginx.conf"
}


# The process below this one that is nginx's master, past what started it.
master_of()
{
    local pid=$1

    while ! grep -q '^nginx' "/proc/$pid/cmdline"; do
        pid=$(cut -d ' ' -f 1 "/proc/$pid/task/$pid/children")
        [ -n "$pid" ] || die "nginx does not run"
    done
    echo "$pid"
}


ask()
{
    local entry container status

    entry='exec nginx -g "daemon off;" -c /etc/nginx-infer/nginx.conf'
    chmod 666 "$out"                # nginx opens /dev/stdout again
    as=www-data
    wrap="python3 $top/tests/debian/no_io_uring.py"
    inside "$entry" > "$out" 2>&1 &
    container=$!
    for _ in $(seq 300); do
        ! curl -fs -o "$root/ready" "http://127.0.0.1:$port/readyz" || break
        sleep 0.2
    done
    curl -fsS "http://127.0.0.1:$port/v1/chat/completions" \
        -H 'Content-Type: application/json' -d '{"max_tokens": 8,
        "temperature": 0, "messages": [{"role": "user",
        "content": "Hello"}]}' || { tail -n 20 "$out"; exit 1; }
    echo
    grep -o 'io_uring is not allowed here.*\|.*sandbox.*' "$out"
    grep -q 'io_uring is not allowed here' "$out"
    kill -QUIT "$(master_of "$container")"
    status=0
    wait "$container" || status=$?
    [ "$status" -eq 0 ] || { tail -n 20 "$out"; die "ended with $status"; }
}


begin_root
stage 1
built=$root
root=
begin_root
trap 'rm -rf --one-file-system "$root" "$built" "$out"' EXIT
stage 2
configure
ask
echo "$release: every step of the Containerfile, an answer without io_uring"

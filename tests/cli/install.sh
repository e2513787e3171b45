#!/bin/bash
# `make install` into an empty DESTDIR, by a user whose umask is strict, puts every page and file where it
# belongs, for all to read; `make uninstall` takes away what it put, and nothing else.
set -eu
[[ $CONFIG == release ]] || { echo "skipped: what is installed is the release build"; exit 77; }
umask 077

# -o: the program is there and tested as it is, whatever flags it was built with.
run_make() {
    env -u MAKEFLAGS -u MAKELEVEL make -s -C "$SRC" CUDA=0 HDF5=0 B="$BUILD" -o "$BUILD/fkm" "$@" > log 2>&1 ||
        { cat log; echo "FAIL make $*"; exit 1; }
}

# expect WHAT WANTED FOUND
expect() {
    [[ "$2" == "$3" ]] || { diff <(echo "$2") <(echo "$3"); echo "FAIL $1 (< expected, > found)"; exit 1; }
}

# installed PREFIX BINDIR: what should be there, with its mode.
installed() {
    local page
    {
        echo "755 .$2/fkm"
        echo "644 .$1/share/doc/fkm/LICENSE"
        echo "644 .$1/share/doc/fkm/README.md"
        for page in "$SRC"/man/*.[0-9]; do
            echo "644 .$1/share/man/man${page##*.}/${page##*/}"
        done
    } | sort
}

# There are pages of these sections at least; the list above would not miss one that is not in man/.
for page in fkm.1 fkm-fit.1 fkm-formats.5 fkm-recovery.7; do
    [[ -e $SRC/man/$page ]] || { echo "FAIL there is no $page"; exit 1; }
done

for where in "/usr/local /usr/local/bin" "/opt/x /opt/x/tools PREFIX=/opt/x bindir=/opt/x/tools"; do
    read -r prefix bindir variables <<< "$where"
    root=$PWD/${prefix////-}
    # shellcheck disable=SC2086
    run_make DESTDIR="$root" $variables install
    expect "installed, $where" "$(installed "$prefix" "$bindir")" "$(cd "$root" && find . ! -type d -printf '%m %p\n' | sort)"
    expect "folders, $where" "" "$(cd "$root" && find . -mindepth 1 -type d ! -perm 755)"
    expect "version, $where" "$("$FKM" --version)" "$("$root$bindir/fkm" --version)"
    echo mine > "$root$prefix/share/man/man7/mine.7"
    # shellcheck disable=SC2086
    run_make DESTDIR="$root" $variables install # over an earlier one
    # shellcheck disable=SC2086
    run_make DESTDIR="$root" $variables uninstall
    expect "left, $where" ".$prefix/share/man/man7/mine.7" "$(cd "$root" && find . ! -type d)"
done

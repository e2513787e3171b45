#!/bin/bash
# The HDF5 library is loaded when an .h5 is opened, and not before: what fkm says when it is missing,
# damaged or another version.
set -u
fails=0

complain() {
    echo "FAIL $*"
    fails=1
}

"$FKM" help formats | grep -q '^  hdf5 ' || { echo "skipped: built without HDF5"; exit 77; }
readelf -d "$FKM" | grep -q 'NEEDED.*hdf5' && complain "fkm is linked with HDF5"
soname=$(strings -n 8 "$FKM" | grep -E '^libhdf5[a-z_]*\.so\.[0-9]+$' | head -1)
[[ -n $soname ]] || { echo "FAIL no name of the library in fkm"; exit 1; }

"$PYTHON" -c '
import struct
rows = [[(i * 37 + t * 11) % 101 for t in range(8)] for i in range(500)]
open("x.fvecs", "wb").write(b"".join(struct.pack("<i8f", 8, *r) for r in rows))' || exit 1
"$FKM" fit -q -k 3 -n 2 --format h5 -o good x.fvecs || complain "the library does not load"
"$FKM" info --dataset centroids good.h5 > expected || complain "what was written cannot be read"

# broken WHAT MESSAGE: with the library in ./lib, .h5 is refused in both directions, the rest works.
broken() {
    LD_LIBRARY_PATH=$PWD/lib "$FKM" info --dataset centroids good.h5 > out 2> err
    code=$?
    [[ $code -eq 4 ]] || complain "$1: reading ends with $code, not 4"
    grep -q "good.h5: .*$2" err || complain "$1: '$(cat err)' lacks '$2'"
    LD_LIBRARY_PATH=$PWD/lib "$FKM" fit -q -k 3 -n 2 --format h5 -o bad x.fvecs > out 2> err
    code=$?
    [[ $code -eq 4 ]] || complain "$1: writing ends with $code, not 4"
    grep -q "$2" err || complain "$1: '$(cat err)' lacks '$2'"
    [[ -z $(ls -A | grep bad) ]] || complain "$1: left $(ls -A | grep bad)"
    LD_LIBRARY_PATH=$PWD/lib "$FKM" fit -q -f -k 3 -n 2 -o plain x.fvecs ||
        complain "$1: npy needs it, too"
}

mkdir lib
echo "no library" > "lib/$soname"
broken "a damaged library" "cannot load the HDF5 library: .*$soname"
grep -q "install the package that holds $soname" err || complain "no hint: $(cat err)"

if [[ $CONFIG == release ]] && command -v "${CC:-cc}" > /dev/null; then
    echo 'int nothing;' | "${CC:-cc}" -shared -fPIC -x c -o "lib/$soname" -
    broken "a library without the functions" "cannot load the HDF5 library: .*undefined symbol"
    # All names, none of which does anything, but the version and what is called before it.
    strings "$FKM" | grep -E '^H5[A-Z]*[a-z_A-Z0-9]+$' | grep -vE '^H5(get_libversion|dont_atexit)$' | sort -u |
        sed 's/.*/long &;/' > all.c
    echo 'int H5get_libversion(unsigned *a, unsigned *b, unsigned *c) { *a = 1, *b = 99, *c = 3; return 0; }
        int H5dont_atexit(void) { return 0; }' >> all.c
    "${CC:-cc}" -shared -fPIC -o "lib/$soname" all.c
    broken "another version" 'is version 1\.99\.3, expected 1\.'
fi
exit $fails

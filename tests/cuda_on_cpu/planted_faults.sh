#!/bin/sh
# usage: planted_faults.sh      (SRC, BUILD: as the suite sets them)
# Every fault that the sources can plant has a line in plants.txt and is noticed by its command there.
set -u
cd "$BUILD" || exit 1
plants=$SRC/tests/cuda_on_cpu/plants.txt
fail=0

complain() {
    echo "planted_faults: $*" >&2
    fail=1
}

# Numbers in the sources, and in the list.
grep -ohE 'FKM_PLANT\([0-9]+\)' "$SRC"/cuda/*.cu "$SRC"/cuda/*.cuh | tr -dc '0-9\n' | sort -un > "$TEST_TMP/planted"
grep -oE '^[0-9]+' "$plants" | sort -un > "$TEST_TMP/listed"
if ! diff "$TEST_TMP/planted" "$TEST_TMP/listed" > "$TEST_TMP/difference"; then
    complain "cuda/ (<) and plants.txt (>) name other faults: $(tr '\n' ' ' < "$TEST_TMP/difference")"
fi

# fkm on a GPU, kernels or copies as early as they may come and the others late, gives the labels of
# fkm on the CPU.
same() {
    "$FKM" fit -q -f -d cpu -o "$TEST_TMP/cpu" "$@" || return 1
    for first in kernels-first copies-first; do
        CUO_STREAMS=$first "$FKM" fit -q -f -d cuda -o "$TEST_TMP/gpu" "$@" &&
            cmp "$TEST_TMP/cpu.labels.npy" "$TEST_TMP/gpu.labels.npy" || return 1
    done
}

touch "$TEST_TMP/passed"
while IFS='|' read -r number what command; do
    case $number in
    '#'* | '') continue ;;
    esac
    if ! grep -qxF "$command" "$TEST_TMP/passed"; then
        export CUO_PLANT=0
        (eval "$command") > "$TEST_TMP/log" 2>&1 || complain "fails without a plant:$command"
        echo "$command" >> "$TEST_TMP/passed"
    fi
    export CUO_PLANT=$((number))
    if (eval "$command") > "$TEST_TMP/log" 2>&1; then
        complain "fault $number was not noticed:$what ($command)"
    else
        echo "fault $number noticed:$what: $(grep -m1 -E 'ERROR  |cuo: |Sanitizer|differ' "$TEST_TMP/log")"
    fi
done < "$plants"
exit $fail

#!/bin/bash
# System calls that are interrupted, cut short or fail, in files that fkm reads and writes: the right
# exit code, a message that names the place, nothing half-published, no temporary left.
set -u
command -v strace > /dev/null || { echo "skipped: there is no strace"; exit 77; }
strace -o /dev/null true 2> /dev/null || { echo "skipped: strace may not trace here"; exit 77; }
case $CONFIG in
release | debug) ;;
*) echo "skipped: sanitizers and strace do not mix"; exit 77 ;;
esac
fails=0

complain() {
    echo "FAIL $*"
    fails=1
}

"$PYTHON" -c '
import struct
rows = [[(i * 37 + t * 11) % 101 for t in range(8)] for i in range(20000)]
open("data.fvecs", "wb").write(b"".join(struct.pack("<i8f", 8, *r) for r in rows))
open("c.fvecs", "wb").write(b"".join(struct.pack("<i8f", 8, *r) for r in rows[:50]))' || exit 1
"$FKM" predict -q -j 1 -c c.fvecs -o good.npy data.fvecs || exit 1

# inject WHAT SYSCALL ACTION: runs predict with the fault; $code, ./stderr. Reads are counted on the
# data alone: the program loader reads, too.
inject() {
    what=$1 only=()
    [[ $2 == pread64 ]] && only=(-P data.fvecs)
    rm -rf out && mkdir out
    strace -f -o trace "${only[@]}" -e "trace=$2" -e "inject=$2:$3" \
        "$FKM" predict -q -j 1 -c c.fvecs -o out/x.npy data.fvecs > stdout 2> stderr
    code=$?
    grep -q INJECTED trace || complain "$what: the fault was never reached"
}

# The run must succeed, with the usual result.
survives() {
    inject "$@"
    [[ $code -eq 0 ]] || complain "$1: exit $code: $(cat stderr)"
    cmp -s good.npy out/x.npy || complain "$1: another result"
}

# The run must end in code $4, say $5, and leave nothing.
ends() {
    inject "$1" "$2" "$3"
    [[ $code -eq $4 ]] || complain "$1: exit $code, not $4: $(cat stderr)"
    grep -q -- "$5" stderr || complain "$1: '$(cat stderr)' lacks '$5'"
    [[ -z $(ls -A out) ]] || complain "$1: left $(ls -A out)"
}

for n in 1 2 3; do
    survives "interrupted read $n" pread64 "error=EINTR:when=$n"
done
survives "reads interrupted again and again" pread64 "error=EINTR:when=1+2"
survives "interrupted write" write "error=EINTR:when=1"
survives "directory that cannot be synced on a network file system" fsync "error=EINVAL:when=2"

ends "I/O error in the rows" pread64 error=EIO:when=3 4 \
    'data.fvecs: cannot read .* bytes at byte .*: Input/output error'
ends "I/O error from the start" pread64 error=EIO:when=1 4 'at byte 0: Input/output error'
ends "file that ends early" pread64 retval=0:when=3 3 \
    'shorter than when it was opened: ends at byte'
ends "full disk" write error=ENOSPC:when=1 4 'out/x.npy: cannot write in .*: No space left on device'
ends "failed rename" rename error=EIO:when=1 4 'out/x.npy: cannot rename a file in'
ends "failed fsync" fsync error=EIO:when=1 4 'out/x.npy: cannot store in .*: Input/output error'
[[ $(grep -c 'fsync(' trace) -eq 1 ]] || complain "fsync was called again after it had failed"
exit $fails

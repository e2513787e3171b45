#!/bin/bash
# The program is built to make a bug hard to use: what its ELF headers and symbols say.
set -u
[[ $CONFIG == release ]] || { echo "skipped: sanitizers have their own flags"; exit 77; }
command -v readelf > /dev/null || { echo "skipped: there is no readelf"; exit 77; }
fails=0

# expect WHAT COMMAND PATTERN: a line of the output matches.
expect() {
    $2 | grep -qE -- "$3" || { echo "FAIL $1: no line of '$2' matches $3"; fails=1; }
}

expect "position-independent" "readelf -hW $FKM" 'Type: +DYN'
expect "addresses of functions are read-only" "readelf -lW $FKM" 'GNU_RELRO'
expect "... and all resolved before main" "readelf -dW $FKM" 'FLAGS.*BIND_NOW|FLAGS_1.*NOW'
expect "the stack is not executable" "readelf -lW $FKM" 'GNU_STACK .* RW +0x'
expect "stack canaries" "readelf -sW --dyn-syms $FKM" '__stack_chk_fail'
expect "checked copies (_FORTIFY_SOURCE)" "readelf -sW --dyn-syms $FKM" '__(memcpy|v?snprintf)_chk'
case $(uname -m) in
# The linker marks the whole only where the system's start files are marked, too.
x86_64) expect "marked targets of indirect calls" "objdump -d --disassemble=main $FKM" 'endbr64' ;;
esac
readelf -lW "$FKM" | grep -qE 'LOAD .* RWE ' && { echo "FAIL a segment is writable and executable"; fails=1; }
readelf -dW "$FKM" | grep -qE 'RPATH|RUNPATH|TEXTREL' && { echo "FAIL a run path or text relocations"; fails=1; }
exit $fails

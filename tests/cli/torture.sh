#!/bin/sh
# A part of scripts/torture, by chance: calls that fail, in every command. The seed is printed.
case $CONFIG in
release) exec "$SRC/scripts/torture" --shallow 12 --jobs 2 --fkm "$(dirname "$BUILD")/faults/fkm" ;;
esac
echo "skipped: the fault layer is a build of its own, run beside the release suite"
exit 77

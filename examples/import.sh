#!/bin/sh
# Puts a tree of files into a cell: every file below DIR becomes a node below PATH, byte for byte.
#
#   sh examples/import.sh DIR /ls/local/docs
#
# Chubby's files are small (P§2.3): a file beyond 256 KiB is named and left out, and the exit code is 1.
set -eu

dir=$1 path=$2 left_out=0
list=$(mktemp)
trap 'rm -f "$list"' EXIT
find "$dir" -type f -printf '%s %P\n' > "$list"
while read -r size name; do
    if [ "$size" -gt 262144 ]; then
        echo "left out, too large: $name" >&2
        left_out=1
        continue
    fi
    wombat put --parents "$path/$name" - < "$dir/$name"
done < "$list"
exit "$left_out"

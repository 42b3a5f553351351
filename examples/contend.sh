#!/bin/sh
# Two processes contend for one lock. One wins, the other waits and follows; every grant has a greater token,
# and a token that is over is refused. Run it with a cell of its own:
#
#   cargo run --release -- dev -- sh examples/contend.sh
set -eu

lock=/ls/local/contend
story=$(mktemp)
trap 'rm -f "$story"' EXIT
wombat put "$lock" "a file whose lock two processes want"

# One process: three times it takes the lock, says so, and works for a moment.
contend() {
    for round in 1 2 3; do
        wombat lock "$lock" -- sh -c "
            echo \"\$WOMBAT_TOKEN $1\" >> $story
            echo \"$1 holds the lock, token \$WOMBAT_TOKEN\"
            echo \"\$WOMBAT_SEQUENCER\" > $story.sequencer
            sleep 0.2
            echo \"$1 is done\"
        "
    done
}

contend "  anna" &
anna=$!
contend "                                    bert" &
bert=$!
wait "$anna"
wait "$bert"

echo
tokens=$(awk '{ print $1 }' "$story")
grants=$(echo "$tokens" | wc -l)
if [ "$grants" -ne 6 ] || [ "$(echo "$tokens" | sort -n -u)" != "$tokens" ]; then
    echo "the tokens did not grow:" $tokens
    exit 1
fi
echo "6 grants, one at a time, tokens grew:" $tokens

# The last holder's sequencer is worth nothing any more: a service that checks it refuses a zombie.
if wombat sequencer check "$(cat "$story.sequencer")" 2> /dev/null; then
    echo "a sequencer outlived its lock"
    exit 1
fi
rm -f "$story.sequencer"
echo "the last holder's sequencer is stale now, as it should be"

#!/bin/sh
# Before the server is asked to end: a primary hands over without losing a write.
. "$(dirname "$0")/common.sh"
trap ': >"$data/stopped"' EXIT   # lets the Sentinel go, see hold.sh

caught_up() {   # every replica that is online has all of it
  state=$(ask failover "$local" 6379 info replication)
  offset=$(printf '%s\n' "$state" | sed -n 's/^master_repl_offset://p')
  online=$(printf '%s\n' "$state" | grep '^slave[0-9]*:.*state=online')
  [ -n "$online" ] && ! printf '%s\n' "$online" | grep -qv "offset=$offset,"
}

moved() {   # every Sentinel that answers names another
  for host in "$local" $(others); do
    if [ "$(named "$host")" = "$address" ]; then return 1; fi
  done
}

# until SECONDS CONDITION: waits, and tells whether it holds.
until_true() {
  end=$(($(date +%s) + $1))
  while ! "$2"; do
    if [ "$(date +%s)" -ge "$end" ]; then return 1; fi
    sleep 0.1
  done
}

coordinated() {   # until Sentinel takes the order or knows none such; it has to have seen all first
  said=$(ask failover "$local" 26379 sentinel failover aggregator coordinated)
  case $said in NOGOOD*) return 1 ;; esac
}

ask failover "$local" 6379 info replication | grep -q '^role:master' || exit 0
until_true 3 coordinated
case $said in
ERR* | NOGOODPRIMARY*)   # before Valkey 9: a primary that takes writes while another is promoted loses them
  ask failover "$local" 6379 client pause 20000 write >/dev/null
  until_true 3 caught_up
  said=$(ask failover "$local" 26379 sentinel failover aggregator)
  ;;
esac
if ! until_true 5 moved; then
  echo "WARNING the primary was not handed over before the stop (${said:-no answer}); Sentinels will elect another within seconds" >&2
fi

#!/bin/sh
# Becomes the server.
. "$(dirname "$0")/common.sh"
server=$(command -v valkey-server || command -v redis-server)
rm -f "$data/stopped"
if [ ! -e "$data/served" ]; then   # the init step has just asked the Sentinels
  : >"$data/served"
  exec "$server" "$data/redis.conf"
fi

# The container restarted inside its pod, its memory is empty. If this was the primary, another one
# has all data and will be promoted: to come back before that would wipe it. Sentinels whose vote was
# split try again after twice the failover timeout; one that nobody names waits for half as long.
trap 'exit 143' TERM   # process 1 of a container ignores what it does not handle
tries=0 primary=
while [ "$tries" -lt 40 ] || { [ "$primary" = "$address" ] && [ "$tries" -lt 80 ]; }; do
  for host in "$local" $(others); do
    said=$(named "$host") && break
  done
  primary=${said:-$primary}
  if [ -n "$primary" ] && [ "$primary" != "$address" ]; then
    exec "$server" "$data/redis.conf" --replicaof "$primary" 6379
  fi
  tries=$((tries + 1))
  sleep 0.25
done
if [ "$primary" = "$address" ]; then
  echo "WARNING no replica was fit to be promoted: this server starts empty as the primary; the aggregators' journals fill it again" >&2
  exec "$server" "$data/redis.conf" --replicaof no one
fi
echo "WARNING no Sentinel answers: this server goes on as its file says; look at the sentinel containers of the group" >&2
exec "$server" "$data/redis.conf"

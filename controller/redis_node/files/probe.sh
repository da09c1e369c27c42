#!/bin/sh
# probe.sh DIRECTORY alive|ready|sentinel: what the kubelet asks.
. "$(dirname "$0")/common.sh"
case $2 in
alive)   # a server that is busy or loading is not to be killed
  ask probe "$local" 6379 ping | grep -qE '^(PONG|LOADING|MASTERDOWN|BUSY)' ;;
ready)   # a replica without its primary has nothing to give
  ask probe "$local" 6379 info replication | grep -qE '^(role:master|master_link_status:up)' ;;
sentinel)
  ask probe "$local" 26379 ping | grep -q '^PONG' ;;
esac

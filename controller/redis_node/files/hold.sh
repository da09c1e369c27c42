#!/bin/sh
# Before the Sentinel is asked to end: the server's own stop needs it, for 15 s at most.
tries=0
while [ ! -e "$1/stopped" ] && [ "$tries" -lt 75 ]; do
  tries=$((tries + 1))
  sleep 0.2
done

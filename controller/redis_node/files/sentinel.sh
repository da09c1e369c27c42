#!/bin/sh
# Becomes the Sentinel; after a restart inside its pod it goes on with the file that it kept.
exec "$(command -v valkey-server || command -v redis-server)" "$1/sentinel.conf" --sentinel

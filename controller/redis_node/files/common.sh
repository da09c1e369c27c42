# Read by the other scripts, whose first argument is the directory that redis-node wrote to.
# Any Redis from 7.0 or Valkey from 8 will do; nothing but a POSIX shell and coreutils or busybox.
data=$1
. "$data/node.sh"   # address, local, config, secrets
cli=$(command -v valkey-cli || command -v redis-cli || :)
if [ -z "$cli" ]; then
  echo "ERROR the image has neither valkey-cli nor redis-cli; choose another spec.redis.managed.image" >&2
  exit 1
fi

# ask USER HOST PORT WORD...: prints the reply, nothing if there is none within two seconds.
ask() {
  ask_as=$1 ask_host=$2 ask_port=$3
  shift 3
  password=$(cat "$secrets/$ask_as")
  REDISCLI_AUTH=$password VALKEYCLI_AUTH=$password timeout 2 "$cli" --user "$ask_as" --no-auth-warning \
    --raw -h "$ask_host" -p "$ask_port" "$@" </dev/null 2>/dev/null | tr -d '\r'
}

# named HOST: prints the address of the primary that the Sentinel there names.
named() {
  ask failover "$1" 26379 sentinel get-master-addr-by-name aggregator | head -n 1 | grep -E '^[0-9a-fA-F.:]+$'
}

# others: prints the addresses of the other pods.
others() {
  cut -d ' ' -f 1 "$config/nodes" | grep -vxF "$address"
}

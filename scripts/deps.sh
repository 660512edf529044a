#!/usr/bin/env bash
# Installs what the tests need beside Go, when it is missing:
#   celery    Python's Celery, the judge of the wire format, with its Redis client
#   redis     a Redis server
#   postgres  PostgreSQL, for River in bench/
#   rabbitmq  a RabbitMQ server
#   gcc       a C compiler, for the race detector only
# The tests start servers of their own. Debian would start one of the system's
# beside them, so no service may start while packages are installed (policy-rc.d),
# and RabbitMQ's is not enabled for the next boot.
# Needs root or sudo for that, and apt; elsewhere it says what to install.
set -euo pipefail

package() {
  case $1 in
    celery)   echo "python3-celery python3-redis" ;;
    redis)    echo redis-server ;;
    postgres) echo postgresql ;;
    rabbitmq) echo rabbitmq-server ;;
    gcc)      echo "gcc libc6-dev" ;;
    *)        echo "deps.sh: nothing is known by the name $1" >&2; exit 2 ;;
  esac
}

# present asks the system's Python, which is where apt puts Celery: another one
# may come first on the PATH.
present() {
  case $1 in
    celery)   /usr/bin/python3 -c 'import celery, redis' 2>/dev/null ;;
    redis)    command -v redis-server >/dev/null ;;
    postgres) ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 ;;
    rabbitmq) test -x /usr/lib/rabbitmq/bin/rabbitmq-server && command -v epmd >/dev/null ;;
    gcc)      command -v gcc >/dev/null ;;
  esac
}

missing=()
for name in "$@"; do
  packages=$(package "$name")
  present "$name" || missing+=($packages)
done
[ ${#missing[@]} -gt 0 ] || exit 0

if ! command -v apt-get >/dev/null; then
  echo "The tests need ${missing[*]} (Debian's names) and there is no apt-get here: install them and run make again." >&2
  exit 1
fi
root=()
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null; then
    echo "The tests need ${missing[*]}: as root, run apt-get install ${missing[*]}, then make again." >&2
    exit 1
  fi
  root=(sudo)
fi
echo "installing ${missing[*]}"
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' | "${root[@]}" tee "$policy" >/dev/null
  "${root[@]}" chmod 755 "$policy"
  trap '"${root[@]}" rm -f "$policy"' EXIT
fi
"${root[@]}" apt-get update -qq
"${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
case " ${missing[*]} " in
  *" rabbitmq-server "*) "${root[@]}" systemctl disable --quiet rabbitmq-server epmd.socket 2>/dev/null || true ;;
esac

#!/bin/sh
# Publishes a reading a second as a device, over one connection, until Ctrl-C. Needs mosquitto_pub.
#
#   ./publish.sh [HOST [PORT]]
#   DEVICE=press-2 PASSWORD=Press-2-demo-1 COUNT=10 EVERY=0.1 ./publish.sh
#
# The password stands in the list of processes while this runs; in earnest put `-P PASSWORD` into
# ~/.config/mosquitto_pub, which mosquitto_pub reads by itself.
set -eu
device=${DEVICE:-press-1}
left=${COUNT:--1}

while [ "$left" -ne 0 ]; do
  printf '{"temperature":%d.%d}\n' $((20 + $(date +%s) % 10)) $((left & 7))
  left=$((left - 1))
  sleep "${EVERY:-1}"
done | mosquitto_pub -h "${1:-127.0.0.1}" -p "${2:-1883}" -i "$device" -c \
  -u "$device" -P "${PASSWORD:-Press-1-demo-1}" -q 1 -t "\$devices/$device/events" -l

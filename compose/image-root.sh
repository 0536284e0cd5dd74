#!/bin/sh
# Lays out the root file system of the image: dist/primer with the libraries that it and its addons link to.
set -eu
root=$1
umask 022
mkdir -p "$root/tmp" "$root/etc" "$root/proc" "$root/dev" "$root/var/lib/primer"
cp dist/primer "$root/primer"

# What stands behind "=>", and the loader, which stands alone.
ldd dist/primer node_modules/@node-rs/*/*.node |
  awk '$2 == "=>" && $3 ~ /^\// { print $3 } $1 ~ /^\/.*[0-9]$/ { print $1 }' | sort -u |
  xargs -I '{}' cp -L --parents '{}' "$root"

echo 'primer:x:65532:65532:primer:/var/lib/primer:/nonexistent' >"$root/etc/passwd"
echo 'primer:x:65532:' >"$root/etc/group"
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
chown 65532:65532 "$root/var/lib/primer"
chmod 0700 "$root/var/lib/primer"
chmod 1777 "$root/tmp"

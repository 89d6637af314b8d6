#!/usr/bin/env bash
# Installs Debian packages, named as arguments, without recommended ones and without the services they bring:
# mosquitto, for one, would start a broker on the host, and Birdhouse only wants the program. No service runs or is
# enabled afterwards that was not before. Needs root; tools/setup.sh calls it.
set -euo pipefail

((EUID == 0)) || { echo "system_packages: needs root" >&2; exit 1; }
(($# > 0)) || { echo "usage: system_packages.sh PACKAGE..." >&2; exit 2; }

policy=/usr/sbin/policy-rc.d
saved=$policy.saved-by-birdhouse

# Package scripts ask policy-rc.d before they start anything. Ours says yes only to what is already running, and only
# while this script runs: should it be killed, what it leaves behind answers as if it were not there.
hold_services() {
    restore_policy # what a killed run may have left
    if [[ -e $policy || -L $policy ]]; then mv "$policy" "$saved"; fi
    cat >"$policy" <<POLICY
#!/bin/sh
# Placed by birdhouse's tools/system_packages.sh for the time of one installation.
if [ ! -d /proc/$$ ]; then
    [ -x $saved ] && exec $saved "\$@"
    exit 0
fi
for argument; do
    case \$argument in -*) ;; *) service=\$argument; break ;; esac
done
# Without a running systemd (a container, a chroot) systemctl answers yes to anything.
[ -d /run/systemd/system ] && systemctl is-active --quiet "\$service" || exit 101
POLICY
    chmod 755 "$policy"
}

restore_policy() {
    if grep -qs 'birdhouse' "$policy"; then rm -f "$policy"; fi
    if [[ -e $saved || -L $saved ]]; then mv -f "$saved" "$policy"; fi
}

# The links that make services start at boot, for systemd and for SysV init, whichever is there.
boot_links() {
    find /etc/systemd/system -path '*.wants/*' 2>/dev/null || true
    find /etc/rc[S2345].d -name 'S*' 2>/dev/null || true
}

disable_new_services() {
    local link
    while read -r link; do
        case $link in
        /etc/systemd/*) systemctl --quiet disable "${link##*/}" 2>/dev/null || rm -f "$link" ;;
        /etc/rc*) update-rc.d "$(sed -E 's/^S[0-9]+//' <<<"${link##*/}")" disable ;;
        esac
    done < <(comm -13 <(echo "$links_before") <(boot_links | LC_ALL=C sort))
    if [[ -d /run/systemd/system ]]; then systemctl daemon-reload; fi
}

finish() {
    local status=$?
    trap - EXIT
    restore_policy
    LC_ALL=C disable_new_services || status=1
    exit "$status"
}

links_before=$(boot_links | LC_ALL=C sort)
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
hold_services

export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
apt-get -q update
apt-get -q -o DPkg::Lock::Timeout=300 install --yes --no-install-recommends "$@"

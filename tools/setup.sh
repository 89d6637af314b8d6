#!/usr/bin/env bash
# Makes this checkout ready to run: the system's packages (Debian, Ubuntu), then .venv from requirements.lock.
#
# Run it as often as you like: it looks before it acts. sudo is asked for only when a package is missing, and only
# for tools/system_packages.sh; everything else is written by, and belongs to, whoever calls it.
#
#   PYTHON=python3.12 tools/setup.sh     with another interpreter than python3
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${PYTHON:-python3}

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# What each is for is said in docs/dependencies.md.
needed_packages() {
    echo mininet iproute2 ethtool bridge-utils iputils-ping tcpdump
    echo mosquitto mosquitto-clients libcoap3-bin redis-tools bind9-dnsutils
    # Ubuntu's "chromium" is a shim that fetches a snap: there, the test of the report in a browser uses what it finds.
    [[ $1 == ubuntu ]] || echo chromium
    # Only Debian's own Python comes without ensurepip; an interpreter from elsewhere does not need this.
    "$python" -c 'import ensurepip' 2>/dev/null || echo python3-venv
}

is_installed() { [[ $(dpkg-query -W -f '${Status}' "$1" 2>/dev/null) == "install ok installed" ]]; }

# Sets system=ready or system=simulation-only.
install_system_packages() {
    system=simulation-only
    local ID="" ID_LIKE=""
    # shellcheck source=/dev/null
    [[ -r /etc/os-release ]] && . /etc/os-release
    if [[ " $ID $ID_LIKE " != *" debian "* ]] || ! command -v apt-get >/dev/null; then
        say "this is not Debian or Ubuntu, so no system package is installed. The simulation needs none."
        say "For real networks run 'vagrant up', or on another Linux install by hand:"
        say "  $(needed_packages other | xargs)"
        return
    fi

    local family=$ID package missing=()
    [[ " $ID_LIKE " == *" ubuntu "* ]] && family=ubuntu
    for package in $(needed_packages "$family"); do
        is_installed "$package" || missing+=("$package")
    done
    if ((${#missing[@]} == 0)); then
        system=ready
    elif ((EUID == 0)); then
        tools/system_packages.sh "${missing[@]}"
        system=ready
    elif command -v sudo >/dev/null; then
        say "sudo is needed to install: ${missing[*]}"
        sudo tools/system_packages.sh "${missing[@]}"
        system=ready
    else
        say "neither root nor sudo, so these are not installed: ${missing[*]}"
        say "Have an administrator run 'tools/system_packages.sh ${missing[*]}'. The simulation works without them."
    fi
}

# What .venv was made from: when any of this changes it is brought up to date.
wanted_stamp() {
    "$python" - requirements.lock pyproject.toml tools/setup.sh <<'PY'
import hashlib, os, pathlib, sys
rooms = sorted(map(str, pathlib.Path().glob("*/__init__.py")))
parts = [sys.version, os.getcwd(), *rooms, *(pathlib.Path(name).read_text() for name in sys.argv[1:])]
print(hashlib.sha256("\0".join(parts).encode()).hexdigest())
PY
}

version_of() { "$1" -c 'import sys; print(sys.version_info[:2])' 2>/dev/null; }

venv_is_usable() {
    [[ $(version_of .venv/bin/python) == "$(version_of "$python")" ]] && .venv/bin/python -m pip --version &>/dev/null
}

install_python_packages() {
    local stamp=.venv/birdhouse-setup wanted
    wanted=$(wanted_stamp)
    [[ -r $stamp && $(<"$stamp") == "$wanted" ]] && return

    [[ ! -e .venv || -w .venv ]] || die ".venv belongs to somebody else; remove it (it is only a cache) and try again"
    venv_is_usable || "$python" -m venv --clear .venv
    say "installing the locked Python packages into .venv"
    local pip=(.venv/bin/python -m pip --disable-pip-version-check --no-input)
    "${pip[@]}" install --quiet --require-hashes -r requirements.lock
    # setuptools is in the lock: nothing is fetched to build this.
    "${pip[@]}" install --quiet --no-deps --no-build-isolation -e .
    echo "$wanted" >"$stamp"
}

command -v "$python" >/dev/null || die "$python was not found; install Python 3.11 or later"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    die "$("$python" --version) is too old: 3.11 or later is needed (PYTHON=python3.12 make setup picks another)"

install_system_packages
install_python_packages
if [[ $system == ready ]]; then say "ready"; else say "ready for the simulation; --fabric mininet will not work here"; fi

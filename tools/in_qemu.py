#!/usr/bin/env python3
"""Runs a command under another kernel: Debian's, which has sch_netem, in an emulated machine without network.

    tools/in_qemu.py -- .venv/bin/python -m pytest -m netem
    tools/in_qemu.py --out DIR -- COMMAND...          # DIR may be written to; everything else may not

The machine sees this one's files, read-only, as its own (virtio 9p), with fresh and empty /tmp, /run and
/dev, and runs the command as root in the checkout; it has no network interface but its loopback. Its console
is our standard output, the command's exit status ours. It needs no root and no KVM: the processor is emulated
(TCG), some ten times slower than a real one.

Needs qemu-system-x86_64 and a static busybox; the kernel is downloaded once as a package, by
apt-get, and unpacked into build/qemu. It is not installed: this machine's own boot is not touched.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
BUILD = CHECKOUT / "build" / "qemu"
PACKAGES = ("qemu-system-x86", "busybox-static")
PROGRAMS = {"qemu-system-x86_64", "busybox"}
MODULES = (
    "virtio_pci", "9p", "9pnet_virtio",
    "tun", "veth", "bridge", "sch_netem", "sch_htb", "inet_diag", "tcp_diag", "udp_diag", "raw_diag",
)  # fmt: skip
STATUS = "exit-status"

INIT = """\
#!/bin/busybox sh
# The first process of the emulated machine: mounts, runs /command, says how it ended, switches off.
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
stty -F /dev/console -opost
for module in {modules}; do insmod /modules/$module || echo "in_qemu: cannot load $module"; done
mount -t 9p -o trans=virtio,version=9p2000.L,msize=1048576,cache=loose,ro host /host || poweroff -f
mount --move /dev /host/dev
mkdir -p /host/dev/pts /host/dev/shm
mount -t devpts devpts /host/dev/pts
mount -t proc proc /host/proc
mount -t sysfs sysfs /host/sys
for place in tmp run dev/shm; do mount -t tmpfs tmpfs /host/$place; done
mkdir -m 1777 /host/tmp/home
mount -t cgroup2 cgroup2 /host/sys/fs/cgroup
mount -t 9p -o trans=virtio,version=9p2000.L,msize=1048576 out /out
ifconfig lo up
mkdir -p /host{out} && mount -o bind /out /host{out}
cp /command /host/run/command
chroot /host /bin/sh -c 'exec /bin/sh /run/command </dev/null >/dev/console 2>&1'
echo $? > /out/{status}
sync
poweroff -f
"""

COMMAND = """\
cd {checkout}
export HOME=/tmp/home PATH={path} PYTHONDONTWRITEBYTECODE=1
exec {command}
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=BUILD / "out", help="the folder that may be written to")
    parser.add_argument("--install", action="store_true", help="install what is missing, with apt-get")
    parser.add_argument("--memory-mb", type=int, default=1024)
    parser.add_argument("--timeout-s", type=float, default=1800.0, help="switch the machine off after that")
    parser.add_argument("command", nargs="+", help="what to run; put -- before it")
    arguments = parser.parse_args()
    out = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    if arguments.install and PROGRAMS - found_programs():
        sudo = () if os.geteuid() == 0 else ("sudo",)
        run(*sudo, str(CHECKOUT / "tools" / "system_packages.sh"), *PACKAGES)
    if missing := PROGRAMS - found_programs():
        packages = " ".join(PACKAGES)
        sys.exit(
            f"in_qemu: there is no {' and no '.join(sorted(missing))}; say --install, or "
            f"apt-get install --no-install-recommends {packages}"
        )
    kernel = fetch_kernel()
    initramfs = pack_initramfs(kernel, out, arguments.command)
    sys.exit(boot(kernel / "boot", initramfs, out, arguments.memory_mb, arguments.timeout_s))


def found_programs() -> set[str]:
    """Those of `PROGRAMS` that are here."""
    return {program for program in PROGRAMS if shutil.which(program)}


def fetch_kernel() -> Path:
    """The unpacked package of the distribution's kernel; downloaded where that has not happened."""
    for found in BUILD.glob("linux-image-*/boot"):
        return found.parent
    depends = run("apt-cache", "depends", "linux-image-amd64")
    match = re.search(r"Depends: (linux-image-\S+)", depends)
    if match is None:
        sys.exit("in_qemu: apt knows no linux-image-amd64, which is Debian's name for its kernel")
    BUILD.mkdir(parents=True, exist_ok=True)
    run("apt-get", "download", match[1], at=BUILD)
    (package,) = BUILD.glob(f"{match[1]}_*.deb")
    unpacked = BUILD / "unpacking"
    shutil.rmtree(unpacked, ignore_errors=True)
    run("dpkg-deb", "--extract", str(package), str(unpacked))
    package.unlink()
    return unpacked.rename(BUILD / match[1])


def pack_initramfs(kernel: Path, out: Path, command: list[str]) -> Path:
    """What the kernel starts from: busybox, a few modules, and what to do."""
    root = BUILD / "initramfs"
    shutil.rmtree(root, ignore_errors=True)
    for name in ("bin", "proc", "sys", "dev", "host", "out", "modules"):
        (root / name).mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "", root / "bin" / "busybox")
    modules = copy_modules(kernel, root / "modules")
    init = root / "init"
    init.write_text(INIT.format(modules=" ".join(modules), out=shlex.quote(str(out)), status=STATUS))
    init.chmod(0o755)
    path = f"{CHECKOUT}/.venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    (root / "command").write_text(
        COMMAND.format(checkout=shlex.quote(str(CHECKOUT)), path=path, command=shlex.join(command))
    )
    names = "\n".join(str(each.relative_to(root)) for each in sorted(root.rglob("*")))
    archive = BUILD / "initramfs.cpio"
    with archive.open("wb") as file:
        subprocess.run(
            ["busybox", "cpio", "-o", "-H", "newc"],
            cwd=root, input=names.encode(), stdout=file, stderr=subprocess.DEVNULL, check=True,
        )  # fmt: skip
    return archive


def copy_modules(kernel: Path, target: Path) -> list[str]:
    """Copy the modules we want and those that they need; their file names in the order of loading."""
    files = {path.stem: path for path in kernel.glob("lib/modules/**/*.ko")}
    order: dict[str, None] = {}

    def take(module: str) -> None:
        path = files.get(module) or files.get(module.replace("_", "-"))
        if path is None or path.name in order:
            return  # built into the kernel, or taken
        depends = re.search(rb"\0depends=([^\0]*)", path.read_bytes())
        for other in depends[1].decode().split(",") if depends and depends[1] else ():
            take(other)
        shutil.copy(path, target)
        order[path.name] = None

    for module in MODULES:
        take(module)
    return list(order)


def boot(images: Path, initramfs: Path, out: Path, memory_mb: int, timeout_s: float) -> int:
    """Run the machine until it switches itself off; the command's exit status."""
    (kernel,) = images.glob("vmlinuz-*")
    status = out / STATUS
    status.unlink(missing_ok=True)
    machine = subprocess.Popen(
        [
            "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2",
            "-m", str(memory_mb), "-nodefaults", "-no-user-config", "-nic", "none", "-display", "none",
            "-no-reboot", "-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
            "-kernel", str(kernel), "-initrd", str(initramfs),
            "-append", "console=ttyS0 quiet loglevel=3 panic=-1 mitigations=off",
            "-fsdev", "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap",
            "-device", "virtio-9p-pci,fsdev=host,mount_tag=host",
            "-fsdev", f"local,id=out,path={out},security_model=none,multidevs=remap",
            "-device", "virtio-9p-pci,fsdev=out,mount_tag=out",
        ],
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        machine.wait(timeout_s)
    except subprocess.TimeoutExpired:
        print(f"in_qemu: switched off after {timeout_s:.0f} s", file=sys.stderr)
    finally:
        machine.kill()
        machine.wait()
    return int(status.read_text()) if status.exists() else 1


def run(*command: str, at: Path | None = None) -> str:
    """Its output; an error ends us."""
    done = subprocess.run(command, cwd=at, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"in_qemu: {shlex.join(command)} failed")
    return done.stdout


if __name__ == "__main__":
    main()

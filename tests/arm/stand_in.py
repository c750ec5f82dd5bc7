"""Builds what the ARM tests stand on: machines that are not here, as root file systems, wheels and a bootable image.

    python tests/arm/stand_in.py .arm

Debian's packages for arm64 and armhf are unpacked, none of their scripts is run, and nothing is registered with the
kernel. Programs that are missing are installed by apt, as root. A part is made in a staging folder, takes its name when
it is complete, and is made anew when this file, the two init scripts or constraints.txt change.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
INPUTS = (Path(__file__).resolve(), HERE / "ramdisk_init.sh", HERE / "board_init.sh", CONSTRAINTS)
KEY = "made-of"  # the file in a part that says what it was made of
MIRROR = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org/debian")
SEARCHED = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))  # mkfs and depmod are for root

# By package, a program of it, or a file where it has none.
PACKAGES = {
    "qemu-user": "qemu-aarch64",
    "qemu-system-arm": "qemu-system-aarch64",
    "mmdebstrap": "mmdebstrap",
    "debian-archive-keyring": "/usr/share/keyrings/debian-archive-keyring.gpg",
    "openssh-client": "ssh",
    "rsync": "rsync",
    "kmod": "depmod",
    "cpio": "cpio",
    "e2fsprogs": "mkfs.ext4",
    "gcc-arm-linux-gnueabihf": "arm-linux-gnueabihf-gcc",
    "libc6-dev-armhf-cross": "/usr/arm-linux-gnueabihf/lib/crti.o",
}
# What the base package needs, with the second runtime; typer and rich for the wheel on Python 3.13.
RUNTIMES = ("numpy", "onnxruntime", "ai-edge-litert", "msgspec", "safetensors")
CONSOLE = ("typer", "rich")
LEVELS = ("manylinux_2_17", "manylinux2014", "manylinux_2_26", "manylinux_2_27", "manylinux_2_28", "manylinux_2_34")
PYTHONS = ("3.11", "3.13")  # Debian 12 and Raspberry Pi OS; Debian 13

USERLAND = ("python3", "libstdc++6", "libgomp1", "coreutils", "dash")
BOARD = ("python3-venv", "ca-certificates", "busybox-static", "dropbear-bin", "openssh-sftp-server")
TOOLS = ("findutils", "grep", "gzip", "hostname", "libc-bin", "mawk", "mount", "procps", "sed", "tar", "util-linux")
KERNEL = ("rsync", "linux-image-arm64")
# For the virt machine its disk and network, for the Raspberry Pi its card, its thermal zone and network over USB.
MODULES = (
    *("virtio_pci", "virtio_blk", "virtio_net", "ext4", "crc32c_generic"),
    *("bcm2835", "sdhci-iproc", "bcm2835_thermal", "dwc2", "cdc_ether", "phy-generic"),
)
IMAGE_BYTES = 2 << 30  # sparse; a power of two, as cards have
MSGSPEC = "msgspec==0.19.0"  # has no wheel for 32-bit ARM on PyPI: compiled here from one C file


def main(arguments: Sequence[str]) -> int:
    """Build every part that is missing or stale in the folder named by the only argument."""
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    install_programs()
    folder = Path(arguments[0]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for version in PYTHONS:
        part(folder / f"wheels-{version}", lambda made, version=version: wheels(made, version))
    part(folder / "arm64", lambda made: board(made, folder / "wheels-3.11"))
    part(folder / "trixie", trixie)
    part(folder / "armhf", armhf)
    return 0


def install_programs() -> None:
    """Install by apt what is missing; where that cannot be done, end and say what to install."""
    missing = [package for package, sign in PACKAGES.items() if shutil.which(sign, path=SEARCHED) is None]
    missing = [package for package in missing if not Path(PACKAGES[package]).is_file()]
    if not missing:
        return
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        sys.exit(f"the ARM tests need {' '.join(missing)}: as root on Debian, apt-get install them and run this again")
    print(f"== installing {' '.join(missing)}", flush=True)
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run("apt-get", "-qq", "update", env=quiet)
    run("apt-get", "-qq", "install", "-y", "--no-install-recommends", *missing, env=quiet)


def part(target: Path, make: Callable[[Path], None]) -> None:
    """``make`` the folder ``target``, unless it is there and was made of the same inputs."""
    key = hashlib.sha256(b"".join(file.read_bytes() for file in INPUTS)).hexdigest()
    stamp = target / KEY
    if stamp.is_file() and stamp.read_text() == key:
        return
    print(f"== making {target.name}", flush=True)
    staging = target.with_name(f"{target.name}.new")
    for stale in (staging, target):
        shutil.rmtree(stale, ignore_errors=True)
    staging.mkdir()
    make(staging)
    (staging / KEY).write_text(key)
    staging.rename(target)


def wheels(made: Path, version: str) -> None:
    """The aarch64 wheels of one Python, newest that are allowed: what a board without network would be given."""
    run(*pip("download"), "-d", made, *platform("aarch64", version), "-c", CONSTRAINTS, *RUNTIMES, *CONSOLE)


def board(made: Path, wheelhouse: Path) -> None:
    """Debian 12 for arm64 with the runtimes: ``rootfs``, ``kernel``, ``root.img`` and the keys to log in."""
    rootfs = made / "rootfs"
    unpack(rootfs, "arm64", "bookworm", (*USERLAND, *BOARD, *TOOLS, *KERNEL))
    kernel(rootfs, made / "kernel")
    own = ("--no-index", "--find-links", wheelhouse, *platform("aarch64", "3.11"))
    run(*pip("install"), "--target", rootfs / "opt/edge", *own, *RUNTIMES)
    login(made, rootfs)
    image = made / "root.img"
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    run("mkfs.ext4", "-q", "-F", "-d", rootfs, image)


def trixie(made: Path) -> None:
    """Debian 13 for arm64, for its Python 3.13."""
    unpack(made / "rootfs", "arm64", "trixie", USERLAND)


def armhf(made: Path) -> None:
    """Debian 12 for 32-bit ARM with its own numpy 1, and tflite-runtime: where there is no other runtime."""
    rootfs, site, sources = made / "rootfs", made / "rootfs/opt/edge", made / "sources"
    unpack(rootfs, "armhf", "bookworm", (*USERLAND, "python3-numpy", "libpython3.11-dev"))
    libraries = rootfs / "usr/lib/arm-linux-gnueabihf"
    for name in ("blas", "lapack"):  # what update-alternatives would do
        (libraries / f"lib{name}.so.3").symlink_to(f"{name}/lib{name}.so.3")
    wanted = ("tflite-runtime==2.14.0", "safetensors")
    run(*pip("install"), "--no-deps", "--target", site, *platform("armv7l", "3.11"), *wanted)
    run(*pip("download"), "--no-deps", "--no-build-isolation", "--no-binary", "msgspec", "-d", sources, MSGSPEC)
    shutil.unpack_archive(next(sources.glob("*.tar.gz")), sources)
    package = next(sources.glob("msgspec-*/msgspec"))
    shutil.copytree(package, site / "msgspec")
    include = rootfs / "usr/include"
    extension = site / "msgspec/_core.cpython-311-arm-linux-gnueabihf.so"
    headers = ("-I", include / "python3.11", "-I", include)
    run("arm-linux-gnueabihf-gcc", "-O2", "-shared", "-fPIC", *headers, "-o", extension, package / "_core.c")


def unpack(rootfs: Path, architecture: str, suite: str, packages: Sequence[str]) -> None:
    """A root file system of Debian packages that were unpacked and not configured."""
    what = (f"--architectures={architecture}", f"--include={','.join(packages)}")
    run("mmdebstrap", "--quiet", "--variant=extract", *what, suite, rootfs, f"deb {MIRROR} {suite} main")
    for name in ("bin", "lib"):  # a link that the installer would make, from Debian 13 on
        if not (rootfs / name).exists():
            (rootfs / name).symlink_to(f"usr/{name}")


def kernel(rootfs: Path, made: Path) -> None:
    """Move the kernel out of ``rootfs``: vmlinuz, the Raspberry Pi's device tree, and a ramdisk that finds the disk."""
    version = next((rootfs / "lib/modules").iterdir()).name
    ramdisk = made / "ramdisk"
    for name in ("bin", "proc", "sys", "dev", "mnt", "mod"):
        (ramdisk / name).mkdir(parents=True)
    shutil.copy(rootfs / f"boot/vmlinuz-{version}", made / "vmlinuz")
    shutil.copy(rootfs / f"usr/lib/linux-image-{version}/broadcom/bcm2837-rpi-3-b.dtb", made)
    run("depmod", "-b", rootfs, version)
    load = []
    for module in MODULES:
        tell = ("modprobe", "-d", rootfs, "-S", version, "--show-depends", module)
        for file in re.findall(r"^insmod (\S+)", run(*tell), re.MULTILINE):
            load.append(Path(file).name)
            shutil.copy(file, ramdisk / "mod")
    (ramdisk / "mods").write_text("\n".join(dict.fromkeys(load)) + "\n")
    shutil.copy(HERE / "ramdisk_init.sh", ramdisk / "init")
    (ramdisk / "init").chmod(0o755)
    shutil.copy(rootfs / "bin/busybox", ramdisk / "bin")
    pack = "find . | cpio -o -H newc --quiet | gzip -1"
    with (made / "initrd.gz").open("wb") as file:
        subprocess.run(["sh", "-ec", pack], cwd=ramdisk, stdout=file, check=True)
    for used in (rootfs / "lib/modules", rootfs / "boot", rootfs / f"usr/lib/linux-image-{version}", ramdisk):
        shutil.rmtree(used)


def login(made: Path, rootfs: Path) -> None:
    """A root account, a key that opens it, and a host key that is the same at every start."""
    files = {
        "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
        "etc/group": "root:x:0:\n",
        "etc/shells": "/bin/sh\n",
        "etc/hostname": "board\n",
    }
    for name in ("proc", "sys", "dev", "tmp", "run", "boot", "root/.ssh", "etc/dropbear"):
        (rootfs / name).mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (rootfs / name).write_text(text)
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "board", "-f", made / "key")
    keys = rootfs / "root/.ssh/authorized_keys"
    shutil.copy(made / "key.pub", keys)
    for file, mode in ((rootfs / "root", 0o700), (keys.parent, 0o700), (keys, 0o600)):
        file.chmod(mode)
    shutil.copy(HERE / "board_init.sh", rootfs / "board-init")
    make = (rootfs / "usr/bin/dropbearkey", "-t", "ed25519", "-f", rootfs / "etc/dropbear/host_key")
    said = run("qemu-aarch64", "-cpu", "cortex-a72", "-L", rootfs, *make)
    public = re.search(r"^ssh-ed25519 \S+", said, re.MULTILINE)
    assert public is not None, said
    (made / "host_key.pub").write_text(f"{public[0]}\n")


def pip(verb: str) -> tuple[str, ...]:
    """This Python's pip, saying only what goes wrong."""
    return (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", verb)


def platform(machine: str, version: str) -> tuple[str, ...]:
    """pip's options for wheels of another machine. It takes a level for itself alone, so that all have to be named."""
    levels = [f"--platform={level}_{machine}" for level in LEVELS]
    return (*levels, "--implementation=cp", f"--python-version={version}", "--only-binary=:all:")


def run(*command: str | Path, env: dict[str, str] | None = None) -> str:
    """A program's standard output; what it says on standard error is shown.

    Raises:
        SystemExit: it failed.
    """
    environment = {**(env or os.environ), "PATH": SEARCHED}
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, text=True, check=False, env=environment)
    if done.returncode != 0:
        sys.exit(f"{done.stdout}\n{' '.join(map(str, command))}: failed with {done.returncode}")
    return done.stdout


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

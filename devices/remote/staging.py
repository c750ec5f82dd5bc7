"""What is half made on a board has the name of the link that makes it, and goes when that link has ended."""

from __future__ import annotations

import secrets

PREFIX = ".edgeseq-part-"
_BOOT = "$(cat /proc/sys/kernel/random/boot_id 2>/dev/null)"
_NODE = "$({ uname -n | tr -cd A-Za-z0-9.-; } 2>/dev/null)"
# Who makes something: the process there that lasts as long as the link, the boot of the board that numbered it, and
# the board's name, since several may have one home.
OWNER = f'"$$_{_BOOT}_{_NODE}"'
# sweep FOLDER: remove what is half made in it, and made by nobody any more. Whether somebody works at what another
# board makes cannot be seen from here: that goes when it is a day old.
SWEEP = f"""
sweep() {{
  boot={_BOOT}
  node={_NODE}
  for each in "$1"/{PREFIX}*; do
    owner=${{each##*/{PREFIX}}}
    case $owner in
      *_"$boot"_"$node"_*) kill -0 "${{owner%%_*}}" 2>/dev/null && continue ;;
      *_*_"$node"_*) ;;
      *) [ -n "$(find "$each" -prune -mtime +0 2>/dev/null)" ] || continue ;;
    esac
    rm -rf -- "$each"
  done
}}
"""


def staging(folder: str, owner: str) -> str:
    """A new path in a folder there, for what ``owner`` (of the link) makes."""
    return f"{folder}/{PREFIX}{owner}_{secrets.token_hex(8)}"

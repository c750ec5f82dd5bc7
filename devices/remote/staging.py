"""What is half made on a board has the name of the link that makes it, and goes when that link has ended."""

from __future__ import annotations

import secrets

PREFIX = ".edgeseq-part-"
# Who makes something: the process there that lasts as long as the link, and the boot of the board that numbered it.
OWNER = '"$$_$(cat /proc/sys/kernel/random/boot_id 2>/dev/null)"'
# sweep FOLDER: remove what is half made in it, and made by nobody any more.
SWEEP = f"""
sweep() {{
  boot=$(cat /proc/sys/kernel/random/boot_id 2>/dev/null)
  for each in "$1"/{PREFIX}*; do
    owner=${{each##*/{PREFIX}}}
    case $owner in *_"$boot"_*) kill -0 "${{owner%%_*}}" 2>/dev/null && continue ;; esac
    rm -rf -- "$each"
  done
}}
"""


def staging(folder: str, owner: str) -> str:
    """A new path in a folder there, for what ``owner`` (of the link) makes."""
    return f"{folder}/{PREFIX}{owner}_{secrets.token_hex(8)}"

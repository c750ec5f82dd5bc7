"""What ssh said, in plain words, and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Callable

from edgeseq.devices.remote.target import Ssh

ACCEPT_FLAG = "--accept-new-host-key"
# Of its log at the level DEBUG1 only the key is wanted. What it says to its user stands there without a prefix.
_DEBUG = re.compile(r"debug\d: |OpenSSH_|\s*$")
_KEY = re.compile(r"^debug1: Server host key: (?:ssh-|ecdsa-sha2-)?(\S+) (SHA256:\S+)", re.MULTILINE)
_NO_SSHD = r"kex_exchange_identification|banner exchange: .*invalid|ssh_exchange_identification"

Explain = Callable[[Ssh, str, "re.Match[str]"], str]


def explain(target: Ssh, log: str) -> str:
    """Why no link came about, from ssh's own log: what is the matter, and what mends it."""
    for pattern, words in _CAUSES:
        found = re.search(pattern, log, re.MULTILINE)
        if found:
            return words(target, log, found)
    return f"ssh gave up: {last_words(log) or 'it said nothing'}; does {typed(target)} work?"


def last_words(log: str) -> str:
    """The last lines that ssh wrote for its user."""
    lines = [line.strip() for line in log.splitlines() if not _DEBUG.match(line)]
    return "; ".join(lines[-2:])


def typed(target: Ssh) -> str:
    """The command that a user would type."""
    port = f"-p {target.port} " if target.port else ""
    return f"ssh {port}{_login(target)}"


def _login(target: Ssh) -> str:
    return f"{target.user}@{target.host}" if target.user else target.host


def _key(log: str) -> str:
    keys = _KEY.findall(log)
    return f"{keys[-1][0].upper()} {keys[-1][1]}" if keys else "that ssh did not show"


def _unknown_name(target: Ssh, log: str, found: re.Match[str]) -> str:
    return f"no machine is called {found[1]!r} here ({found[2]}): check the name, or use the address"


def _refused(target: Ssh, log: str, found: re.Match[str]) -> str:
    return (
        f"nothing answers on port {found[2]} of {found[1]} (connection refused): is its ssh server on "
        "(Raspberry Pi: sudo raspi-config, Interface Options, SSH), and the port right?"
    )


def _no_way(target: Ssh, log: str, found: re.Match[str]) -> str:
    return f"{found[1]} cannot be reached ({found[3].lower()}): is it on, in this network, and the address right?"


def _silent(target: Ssh, log: str, found: re.Match[str]) -> str:
    return "it took the connection and said nothing in time: what listens there is no ssh server, or the board hangs"


def _unknown_key(target: Ssh, log: str, found: re.Match[str]) -> str:
    return (
        f"the host key of {found[2]} is not known yet: it is {_key(log)}. If that is the board's (on the board: "
        f"ssh-keygen -lf /etc/ssh/ssh_host_{found[1].lower()}_key.pub), accept it once with {ACCEPT_FLAG}"
    )


def _changed_key(target: Ssh, log: str, found: re.Match[str]) -> str:
    remove = re.search(r"^\s*(ssh-keygen -f .* -R .*?)\s*$", log, re.MULTILINE)
    named = f"[{target.host}]:{target.port}" if target.port not in (None, 22) else target.host
    command = remove[1] if remove else f"ssh-keygen -R '{named}'"
    return (
        f"its host key changed, to {_key(log)}: either the board was installed anew, or something else answers in its "
        f"place. Only if you know it is the former: {command}"
    )


def _denied(target: Ssh, log: str, found: re.Match[str]) -> str:
    port = f"-p {target.port} " if target.port else ""
    return (
        f"it does not let you in ({found[0].strip()}): edgeseq logs in with keys alone, never with a password. Put "
        f"yours on the board with ssh-copy-id {port}{_login(target)}; a key with a passphrase needs ssh-agent"
    )


def _no_server(target: Ssh, log: str, found: re.Match[str]) -> str:
    return f"it closed the connection before it said who it is: still starting up, or no ssh server ({last_words(log)})"


_CAUSES: tuple[tuple[str, Explain], ...] = (
    (r"REMOTE HOST IDENTIFICATION HAS CHANGED", _changed_key),
    (r"No (\S+) host key is known for (.*?) and you have requested strict", _unknown_key),
    (r"[Cc]ould not resolve hostname ([^:]*): (.*?)\s*$", _unknown_name),
    (r"connect to host (\S+) port (\d+): Connection refused", _refused),
    (r"connect to host (\S+) port (\d+): (.*?)\s*$", _no_way),
    (r"timed out during banner exchange|Connection to .* port \d+ timed out", _silent),
    (r"Permission denied \(.*\)|Too many authentication failures|No supported authentication methods", _denied),
    (_NO_SSHD, _no_server),
)

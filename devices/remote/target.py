"""Where a model runs: on this machine, or on one that is reached over ssh."""

from __future__ import annotations

import re

import msgspec

from edgeseq.errors import InputError

LOCAL = "local"
FORM = "ssh://user@host or ssh://user@host:port"
# Read here and not by urllib, which makes host names lower case: in the user's ssh configuration case matters.
_URL = re.compile(r"ssh://((?P<user>[^@/]*)@)?(\[(?P<address>[^]]*)\]|(?P<host>[^]@/:[]*))(:(?P<port>[0-9]{0,9}))?/?")
# No name of a host or a user needs more than this, and nothing of it means anything to a shell, to ssh's command line,
# or in a ProxyCommand of the user's configuration, where ssh puts them unquoted.
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_ADDRESS = re.compile(r"[0-9A-Fa-f:]+[0-9A-Fa-f:.]*(%[A-Za-z0-9_.-]+)?")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]*")


class Local(msgspec.Struct, frozen=True):
    """This machine."""

    @property
    def url(self) -> str:
        """How it is written."""
        return LOCAL


class Ssh(msgspec.Struct, frozen=True):
    """A machine that ssh reaches: a host name, an address, or a name out of the user's ssh configuration.

    What is None is for ssh to know: from that configuration, or its own default.
    """

    host: str
    user: str | None = None
    port: int | None = None

    @property
    def url(self) -> str:
        """How it is written."""
        user = f"{self.user}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ssh://{user}{host}" + (f":{self.port}" if self.port else "")


Target = Local | Ssh


def parse_url(text: str) -> Target:
    """``local`` or ``ssh://[user@]host[:port]``; an IPv6 address stands in brackets.

    Raises:
        InputError: anything else, named with what is wrong about it.
    """
    if text == LOCAL:
        return Local()
    found = _URL.fullmatch(text)
    if not found:
        raise InputError(f"device {text!r} is not the address of a board: write {FORM}, or {LOCAL} for this machine")
    user, address, port = found["user"], found["address"], found["port"]
    host = address.replace("%25", "%") if address is not None else found["host"]
    wrong = _wrong(user, host, port, _ADDRESS if address is not None else _HOST)
    if wrong:
        raise InputError(f"device {text!r}: {wrong}; write {FORM}")
    return Ssh(host, user, int(port) if port else None)


def _wrong(user: str | None, host: str, port: str | None, hosts: re.Pattern[str]) -> str | None:
    if user is not None and ":" in user:
        return "a password is not taken, ssh logs in with a key (ssh-copy-id puts yours on the board)"
    if user is not None and not _USER.fullmatch(user):
        return f"{user!r} is not the name of a user"
    if not hosts.fullmatch(host):
        return f"{host!r} is not the name or address of a host"
    if port is not None and not (port and 0 < int(port) < 65536):
        return f"{port!r} is not a port, from 1 to 65535"
    return None

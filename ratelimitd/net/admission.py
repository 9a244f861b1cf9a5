"""Who may connect: over TCP by network, over a unix socket by user."""

import socket
import struct
from collections.abc import Collection
from ipaddress import IPv4Network, IPv6Network, ip_address

import trio

_UCRED = struct.Struct("3i")


def recognise(
    sock: socket.socket,
    address: tuple[str, int] | str,
    allow: Collection[IPv4Network | IPv6Network],
    unix_uids: Collection[int],
) -> tuple[str, str]:
    """A client's name for the log, and why it is refused, "" if it is not.

    No unix_uids: whom the socket's mode admits.
    """
    if sock.family == socket.AF_UNIX:
        if unix_uids and (uid := peer_uid(sock)) not in unix_uids:
            return f"uid {uid}", "not in server.unix_users"
        return "unix", ""
    peer = f"{address[0]}:{address[1]}"
    return peer, "" if is_in(str(address[0]), allow) else "not in server.allow"


def is_in(host: str, allow: Collection[IPv4Network | IPv6Network]) -> bool:
    """Whether an address is in one of the networks."""
    address = ip_address(host.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return any((mapped or address) in network for network in allow)


def peer_uid(sock: socket.socket | trio.socket.SocketType) -> int:
    """The uid of a unix socket's other end (SO_PEERCRED, unix(7): struct ucred of pid, uid and gid)."""
    _, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return int(uid)

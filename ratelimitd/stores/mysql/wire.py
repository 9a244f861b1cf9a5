"""trio-mysql's connection with its faults fixed: safe logins, short reads, a close that closes.

The faults were found by running it (version 1.0.3): a server that offers no TLS gets the password in plain text,
caching_sha2_password as a server's first choice is never awaited, and any server may ask for the plain password.
"""

import hashlib
from typing import Any

import trio
from trio_mysql import _auth, err
from trio_mysql.connections import Connection
from trio_mysql.constants import CLIENT, CR

from ratelimitd.errors import StoreUnsuitable, install
from ratelimitd.stores.mysql.access import Access
from ratelimitd.stores.shared.session import Rows

RECEIVE_BYTES = 8192
"""Rows that arrived together are parsed without a pause: some hundred of them, a millisecond or two."""

MAX_ANSWER_BYTES = 64 << 20
"""No answer that a daemon asks for is a tenth as long: a server that sends more does so without an end."""

_EXTRA = install('"ratelimitd[mysql-auth]"')
_NATIVE = "mysql_native_password"
_NONCE_BYTES = 20
_FAST_AUTH_DONE, _FULL_AUTH_WANTED = b"\x01\x03", b"\x01\x04"


class Wire(Connection):  # type: ignore[misc]
    """One connection, which is used once: `start` logs in, `rows` runs statements, `discard` ends it at any time."""

    _sock: trio.abc.Stream | None
    _rbuf_offset: int

    def __init__(self, access: Access, host: str) -> None:
        super().__init__(
            user=access.user,
            password=access.password,
            host=host,
            database=access.database,
            charset="utf8mb4",
            use_unicode=True,
            autocommit=None,
            ssl=access.tls,
            program_name="ratelimitd",
        )
        self._public_key = access.server_public_key
        self._secure = False
        self.changed = 0
        self.warnings = 0  # how many the last statement gave
        self._received = 0  # since the statement, or the login, began
        self.max_answer: float = MAX_ANSWER_BYTES

    async def start(self, stream: trio.SocketStream, secure: bool) -> None:
        """Log in over a stream; `secure`: a password may be sent over it in plain text."""
        self._secure = secure
        await self.connect(stream)

    async def rows(self, statement: bytes) -> Rows:
        """Run one statement; its rows. Raises the driver's errors."""
        self._received = 0
        await self.query(statement)
        if self._result.has_next:  # the driver would wait for a further result for ever
            raise err.InternalError(CR.CR_COMMANDS_OUT_OF_SYNC, "more than one result")
        self.changed = self._result.affected_rows or 0
        self.warnings = self._result.warning_count
        return self._result.rows or ()

    def discard(self) -> None:
        """Close the socket, whatever the connection is doing."""
        stream, self._sock = self._sock, None
        self._closed = True
        while isinstance(stream, trio.SSLStream):
            stream = stream.transport_stream
        if isinstance(stream, trio.SocketStream):
            stream.socket.close()

    _force_close = discard

    def __del__(self) -> None:
        """Nothing: the session has closed the socket while the loop was running."""

    async def _read_bytes(self, num_bytes: int) -> bytes:
        buffer: bytearray = self._rbuf
        if len(buffer) - self._rbuf_offset < num_bytes:
            del buffer[: self._rbuf_offset]
            self._rbuf_offset = 0
            while len(buffer) < num_bytes:
                data = b"" if self._sock is None else await self._sock.receive_some(RECEIVE_BYTES)
                if not data:
                    raise err.OperationalError(CR.CR_SERVER_LOST, "Lost connection to MySQL server during query")
                buffer += data
                self._received += len(data)
                if self._received > self.max_answer:
                    raise err.OperationalError(CR.CR_SERVER_LOST, "an answer without an end")
        start = self._rbuf_offset
        self._rbuf_offset = start + num_bytes
        return bytes(buffer[start : self._rbuf_offset])

    # -- the login -----------------------------------------------------------------------------------------------

    async def _get_server_information(self) -> None:
        await super()._get_server_information()
        if self.ssl and not self.server_capabilities & CLIENT.SSL:
            raise StoreUnsuitable("the server offers no TLS, and store.tls_ca asks for it")
        if self.ssl and len(self._rbuf) > self._rbuf_offset:
            raise StoreUnsuitable("something else answers where the server's TLS should begin")
        # Offered first whatever the server prefers: then it asks for the account's own plugin by a switch request.
        self._auth_plugin_name = _NATIVE

    async def _process_auth(self, plugin_name: bytes, auth_packet: Any) -> Any:
        plugin = plugin_name.decode("ascii", "replace")
        nonce = auth_packet.read_all()
        if plugin == _NATIVE:
            return await self._exchange(_auth.scramble_native_password(self.password, nonce))
        if plugin == "client_ed25519":
            return await self._exchange(_signed(self.password, nonce))
        if plugin == "caching_sha2_password":
            return await self._caching_sha2(nonce[:_NONCE_BYTES])
        raise StoreUnsuitable(
            f"the account {self.user.decode()} logs in by {plugin}; "
            "ratelimitd knows mysql_native_password, ed25519 and caching_sha2_password"
        )

    async def _exchange(self, data: bytes) -> Any:
        await self.write_packet(data)
        packet = await self._read_packet()
        packet.check_error()
        return packet

    async def _caching_sha2(self, nonce: bytes) -> Any:
        """https://dev.mysql.com/doc/dev/mysql-server/latest/page_caching_sha2_authentication_exchanges.html."""
        packet = await self._exchange(_scrambled(self.password, nonce))
        if packet.is_ok_packet():
            return packet
        answer = packet.get_all_data()
        if answer == _FAST_AUTH_DONE:
            packet = await self._read_packet()
            packet.check_error()
            return packet
        if answer != _FULL_AUTH_WANTED:
            raise err.OperationalError(CR.CR_SERVER_LOST, "an answer out of place during the login")
        if self._secure:
            return await self._exchange(self.password + b"\0")
        if self._public_key:
            return await self._exchange(_encrypted(self.password, nonce, self._public_key))
        raise StoreUnsuitable(
            f"the password of {self.user.decode()} would travel in the clear: "
            "set store.tls_ca, store.unix_socket or store.server_public_key"
        )


def _scrambled(password: bytes, nonce: bytes) -> bytes:
    """XOR of SHA256(password) and SHA256(SHA256(SHA256(password)), nonce)."""
    if not password:
        return b""
    once = hashlib.sha256(password).digest()
    mask = hashlib.sha256(hashlib.sha256(once).digest() + nonce).digest()
    return bytes(a ^ b for a, b in zip(once, mask, strict=True))


def _signed(password: bytes, nonce: bytes) -> bytes:
    try:
        signature: bytes = _auth.ed25519_password(password, nonce)
    except RuntimeError as error:
        raise StoreUnsuitable(f"an account with ed25519 needs: {_EXTRA}") from error
    return signature


def _encrypted(password: bytes, nonce: bytes, key: bytes) -> bytes:
    try:
        encrypted: bytes = _auth.sha2_rsa_encrypt(password, nonce, key)
    except RuntimeError as error:
        raise StoreUnsuitable(f"store.server_public_key needs: {_EXTRA}") from error
    except ValueError as error:
        raise StoreUnsuitable(f"store.server_public_key: not an RSA key in PEM: {error}") from error
    return encrypted

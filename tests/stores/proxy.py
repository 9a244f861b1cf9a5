"""A TCP link that can be cut, also right after a statement was done and before its answer arrives."""

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self


class Proxy:
    """Passes bytes on between `port` and a server's port.

    `cut_after`: once the client has sent this and the server has answered, the answer is kept and the link cut; this
    happens `cuts_left` times. `cuts` counts them.
    """

    def __init__(self, server_port: int) -> None:
        self.cut_after = b""
        self.cuts_left = 0
        self.cuts = 0
        self._server_port = server_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._links: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        self.cut_all()

    def cut(self, after: bytes, times: int = 1) -> None:
        """Cut the link after what was sent `after`."""
        self.cut_after, self.cuts_left = after, times

    def cut_all(self) -> None:
        """Cut every link now."""
        with self._lock:
            for link in self._links:
                with contextlib.suppress(OSError):
                    link.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            try:
                server = socket.create_connection(("127.0.0.1", self._server_port))
            except OSError:
                return
            with server:
                state = {"armed": False}
                with self._lock:
                    self._links |= {client, server}
                back = threading.Thread(target=self._answers, args=(server, client, state), daemon=True)
                back.start()
                self._requests(client, server, state)
                back.join()
                with self._lock:
                    self._links -= {client, server}

    def _requests(self, client: socket.socket, server: socket.socket, state: dict[str, bool]) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                if self.cuts_left and self.cut_after in data:
                    self.cuts_left -= 1
                    state["armed"] = True
                server.sendall(data)
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)

    def _answers(self, server: socket.socket, client: socket.socket, state: dict[str, bool]) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                if state["armed"]:
                    self.cuts += 1
                    break
                client.sendall(data)
        for link in (client, server):
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)

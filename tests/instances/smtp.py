"""One SMTP session, exactly as the test says it."""

import base64
import socket
from types import TracebackType
from typing import NamedTuple, Self

_MESSAGE = "Subject: test\r\n\r\ntext\r\n"


class Reply(NamedTuple):
    """A server's reply: its code, and the text of its lines."""

    code: int
    text: str


def xtext(value: str) -> str:
    """RFC 3461 xtext, as XCLIENT wants its values."""
    return "".join(
        chr(byte) if 33 <= byte <= 126 and byte not in b"+=" else f"+{byte:02X}"
        for byte in value.encode("utf-8", "surrogateescape")
    )


class Smtp:
    """A session with the server on `port`; greeted and, unless `helo` is empty, introduced with EHLO."""

    def __init__(self, port: int, helo: str = "client.example.net", timeout: float = 30) -> None:
        self.helo = helo
        self.extensions: tuple[str, ...] = ()
        self._socket = socket.create_connection(("127.0.0.1", port), timeout)
        self._file = self._socket.makefile("rb")
        try:
            self.greeting = self.reply()
            if helo:
                self.ehlo(helo)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up, without QUIT."""
        self._file.close()
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Send these bytes and read nothing."""
        self._socket.sendall(data)

    def reply(self) -> Reply:
        """Read one reply; several lines are joined with a line feed."""
        lines: list[str] = []
        while True:
            line = self._file.readline()
            if not line.endswith(b"\n"):
                raise ConnectionError(f"the server hung up after {lines!r} {line!r}")
            text = line.decode("utf-8", "surrogateescape").rstrip("\r\n")
            lines.append(text[4:])
            if text[3:4] != "-":
                return Reply(int(text[:3]), "\n".join(lines))

    def command(self, line: str | bytes) -> Reply:
        """Send one line (CRLF is added) and read its reply."""
        data = line.encode("utf-8", "surrogateescape") if isinstance(line, str) else line
        self.send(data + b"\r\n")
        return self.reply()

    def expect(self, code: int, line: str | bytes) -> Reply:
        """Send one line; ConnectionError unless the reply has this code."""
        reply = self.command(line)
        if reply.code != code:
            raise ConnectionError(f"{line!r}: {reply}")
        return reply

    def ehlo(self, name: str) -> Reply:
        """EHLO; its answer's lines are kept in `extensions`."""
        reply = self.expect(250, f"EHLO {name}")
        self.extensions = tuple(reply.text.split("\n")[1:])
        return reply

    def login(self, user: str, password: str, authorize_as: str = "") -> Reply:
        """AUTH PLAIN."""
        secret = "\0".join((authorize_as, user, password)).encode("utf-8", "surrogateescape")
        return self.command(b"AUTH PLAIN " + base64.b64encode(secret))

    def login_in_steps(self, user: str, password: str) -> Reply:
        """AUTH LOGIN, which asks for the name, then for the password."""
        reply = self.command("AUTH LOGIN")
        for answer in (user, password):
            if reply.code == 334:
                reply = self.command(base64.b64encode(answer.encode("utf-8", "surrogateescape")))
        return reply

    def xclient(self, **attributes: str) -> Reply:
        """XCLIENT, such as LOGIN="alice"; where it is taken, a new EHLO follows."""
        words = (f" {name.upper()}={xtext(value)}" for name, value in attributes.items())
        reply = self.command("XCLIENT" + "".join(words))
        if reply.code == 220 and self.helo:
            self.ehlo(self.helo)
        return reply

    def mail(self, sender: str, parameters: str = "") -> Reply:
        """MAIL FROM."""
        return self.command(f"MAIL FROM:<{sender}> {parameters}".rstrip())

    def rcpt(self, recipient: str) -> Reply:
        """RCPT TO."""
        return self.command(f"RCPT TO:<{recipient}>")

    def data(self, message: str = _MESSAGE) -> Reply:
        """DATA and the message; the refusal of DATA, or the reply to the end of the message."""
        reply = self.command("DATA")
        if reply.code != 354:
            return reply
        lines = message.encode("utf-8", "surrogateescape").splitlines()
        stuffed = (b"." + line if line.startswith(b".") else line for line in lines)
        self.send(b"".join(line + b"\r\n" for line in stuffed))
        return self.command(".")

    def rset(self) -> Reply:
        """RSET."""
        return self.command("RSET")

    def quit(self) -> Reply:
        """QUIT, and hang up."""
        reply = self.command("QUIT")
        self.close()
        return reply

    def message(self, sender: str, *recipients: str, text: str = _MESSAGE) -> list[Reply]:
        """One transaction: the replies to MAIL, each RCPT and, when one was accepted, DATA."""
        replies = [self.mail(sender)]
        replies += [self.rcpt(recipient) for recipient in recipients]
        if any(reply.code // 100 == 2 for reply in replies[1:]):
            replies.append(self.data(text))
        else:
            self.rset()
        return replies

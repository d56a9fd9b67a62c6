"""HTTP as httptools reads it, with a bound that it has not: what never comes to a body's next part fills no memory."""

from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


def bounded(head: int) -> type[HttpToolsProtocol]:
    """A protocol that takes at most `head` bytes, and the rest of one read, without a whole head or a part of a body.

    So it holds for a line, for lines, for an address, for a chunk's extensions and for what follows a body.
    """

    class Bounded(HttpToolsProtocol):
        _unread = 0

        @override
        def data_received(self, data: bytes) -> None:
            self._unread += len(data)
            super().data_received(data)
            if self._unread > head and not self.transport.is_closing():
                self.send_400_response(f"More than {head} bytes of a head.")

        @override
        def on_headers_complete(self) -> None:
            self._unread = 0
            super().on_headers_complete()

        @override
        def on_body(self, body: bytes) -> None:
            self._unread = 0
            super().on_body(body)

        @override
        def on_message_complete(self) -> None:
            self._unread = 0
            super().on_message_complete()

    return Bounded

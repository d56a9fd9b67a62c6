"""Body of a request up to a limit: of a form, of an approver's answer, and of a call."""

from starlette.requests import ClientDisconnect, Request


async def read_body(request: Request, largest: int) -> bytes | None:
    """Return the body; None if it is larger, or the client disconnects. `ConnectionLimits` closes a slow one."""
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > largest:
                return None
    except ClientDisconnect:
        return None
    return bytes(body)

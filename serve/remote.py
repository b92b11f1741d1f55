"""Calls between the service's processes: what is wrong with a request travels as a value, not as a failure.

Ray Serve logs a traceback for each exception that leaves a replica, and wraps it. `answering` and `streaming` turn our
own errors into values on the side that is called; `Remote` raises them again on the calling side, and says
`Unavailable` where the other process is gone.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing
from typing import Any, TypeVar

from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from serve.live_edits import Unavailable
from soundguide.errors import SoundGuideError

Answer = TypeVar("Answer")

_GONE = "a process of the service has ended and is being replaced. Send the request again in some seconds"


async def answering(call: Awaitable[Answer]) -> Answer | SoundGuideError:
    """Return what a call returns, or the error of ours that it raises."""
    try:
        return await call
    except SoundGuideError as error:
        return error


async def streaming(items: AsyncGenerator[Answer, None]) -> AsyncGenerator[Answer | SoundGuideError, None]:
    """Yield what a stream yields, at last the error of ours that it raises."""
    try:
        async with aclosing(items):
            async for item in items:
                yield item
    except SoundGuideError as error:
        yield error


class Remote:
    """Another process's object; its methods are called by name."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle, self._streams = handle, handle.options(stream=True)

    async def call(self, name: str, *arguments: object) -> Any:
        """Return what a method returns. Raises what it raises, or `Unavailable`."""
        try:
            answer = await getattr(self._handle, name).remote(*arguments)
        except (RayError, RayServeException) as error:
            raise Unavailable(_GONE) from error
        if isinstance(answer, SoundGuideError):
            raise answer
        return answer

    async def stream(self, name: str, *arguments: object) -> AsyncGenerator[Any, None]:
        """Yield what a method yields; leaving closes its generator. Raises what it raises, or `Unavailable`."""
        response = getattr(self._streams, name).remote(*arguments)
        try:
            async for item in response:
                if isinstance(item, SoundGuideError):
                    raise item
                yield item
        except (RayError, RayServeException) as error:
            raise Unavailable(_GONE) from error
        finally:
            response.cancel()  # of one that has ended it does nothing

"""What the jobs slice keeps for each worker: the chat with the model; made when first asked for."""

from callboard_workers.runtime import Runtime
from service.activities.llm import Chat
from service.settings import Settings


class Workshop:
    """What jobs work with on one loop."""

    def __init__(self, settings: Settings) -> None:
        self.chat = Chat.of(settings)

    @classmethod
    def of_loop(cls) -> "Workshop":
        """The workshop of the runtime on this loop, closed with it. Raises NoRuntime where none was started."""
        runtime = Runtime.of_loop()
        return runtime.resource("activities", lambda: cls(runtime.state["settings"]), cls.close)

    async def close(self) -> None:
        """Close the connections to the model."""
        if self.chat is not None:
            await self.chat.close()

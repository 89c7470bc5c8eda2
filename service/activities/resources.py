"""What the jobs slice keeps for each worker: the chat with the model; made when first asked for."""

from callboard_workers.runtime import Runtime
from service.activities.llm import Chat
from service.settings import Settings

KEY = "jobs"


class Workshop:
    """What jobs work with on one loop."""

    def __init__(self, settings: Settings) -> None:
        self.chat = Chat.of(settings)

    @classmethod
    def of_loop(cls) -> "Workshop":
        """The workshop of the runtime on this loop, closed with it. Raises NoRuntime where none was started."""
        runtime = Runtime.of_loop()
        found: Workshop | None = runtime.state.get(KEY)
        if found is None:
            found = runtime.state[KEY] = cls(runtime.state["settings"])
            if found.chat is not None:
                runtime.resources.push_async_callback(found.chat.close)
        return found

"""A real browser for the tests of pages: Chromium, found on this machine or brought to it.

`python -m tests.browser` says where it is; as root on Debian it installs the package first where there is none.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

from playwright.async_api import Browser, async_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PACKAGED = ("/usr/bin", "/usr/lib/chromium", "/snap/bin")  # where Debian and Ubuntu install it, whatever PATH says
# a machine without a way out is not asked for one
QUIET = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run")
DEBIAN = (("apt-get", "update", "-qq"), ("apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium"))
MISSING = """
There is no Chromium here. Install one (Debian: apt-get install chromium; elsewhere: playwright install
chromium), or name the program of one in CHROMIUM, and run the tests again.
"""


def here() -> Path | None:
    """The program of a Chromium on this machine: the one CHROMIUM names, one of PATH or where packages put it."""
    named = os.environ.get("CHROMIUM")
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *PACKAGED])
    found = next(filter(None, (shutil.which(name, path=path) for name in ((named,) if named else NAMES))), None)
    return Path(found) if found else next(_fetched(), None)


def chromium(*ways: tuple[str, ...]) -> Path:
    """The program of a Chromium; where there is none, the commands `ways` are run until there is one.

    Raises RuntimeError, which says what to install.
    """
    for command in ways:
        if here() is None:
            print(f"no browser here yet: {' '.join(command)}", file=sys.stderr, flush=True)
            subprocess.run(command, check=False, timeout=600, stdout=sys.stderr)
    if (found := here()) is None:
        raise RuntimeError(MISSING)
    return found


@asynccontextmanager
async def opened() -> AsyncIterator[Browser]:
    """A headless browser, ended with the block."""
    sandbox = () if os.geteuid() else ("--no-sandbox",)  # Chromium refuses to run as root without it
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium(), args=[*QUIET, *sandbox], timeout=60_000)
        try:
            yield browser
        finally:
            await browser.close()


def _fetched() -> Iterator[Path]:
    """Programs in the folder into which playwright fetches."""
    folder = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH") or Path.home() / ".cache/ms-playwright")
    yield from sorted(folder.glob("chromium-*/chrome-linux*/chrome"), reverse=True)
    yield from sorted(folder.glob("chromium-*/chrome-mac*/*.app/Contents/MacOS/*"), reverse=True)


if __name__ == "__main__":
    may_install = os.geteuid() == 0 and shutil.which("apt-get")
    print(chromium(*(DEBIAN if may_install else ())))

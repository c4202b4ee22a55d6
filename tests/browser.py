"""A headless Chromium driven by ChromeDriver over its own protocol (W3C WebDriver), without a library for it."""

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
]  # fmt: skip
KEYS = {"ENTER": "\ue007", "LEFT": "\ue012", "UP": "\ue013", "RIGHT": "\ue014", "DOWN": "\ue015"}


class Browser:
    """One window; downloads go to a folder, and so does the profile."""

    def __init__(self, folder: Path, width: int = 1400, height: int = 950) -> None:
        self.downloads = folder / "downloads"
        self._process = subprocess.Popen(
            [str(DRIVER), "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self._process.stdout is not None
        line = next(line for line in self._process.stdout if "started successfully on port" in line)
        self._address = f"http://127.0.0.1:{line.strip().rstrip('.').split()[-1]}/session"
        options = {
            "binary": CHROMIUM,
            "args": [*ARGUMENTS, f"--user-data-dir={folder / 'profile'}", f"--window-size={width},{height}"],
            "prefs": {"download.default_directory": str(self.downloads)},
        }
        wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}}
        self._address += "/" + self._send("post", "", wanted)["sessionId"]

    def _send(self, verb: str, path: str, body: object = None) -> Any:
        data = json.dumps({} if body is None else body) if verb == "post" else None
        answer = requests.request(verb, self._address + path, data=data, timeout=120).json()["value"]
        assert not (isinstance(answer, dict) and "error" in answer), answer
        return answer

    def open(self, page: Path) -> None:
        """Load a page from the disk; it has run its script when this returns."""
        self._send("post", "/url", {"url": page.as_uri()})

    def script(self, code: str, *arguments: object) -> Any:
        """Run JavaScript and return what it returns."""
        return self._send("post", "/execute/sync", {"script": code, "args": arguments})

    def press(self, *keys: str) -> None:
        """Press keys one after the other: letters, or names of `KEYS`."""
        actions = [
            {"type": kind, "value": KEYS.get(key, key)} for key in keys for kind in ("keyDown", "keyUp")
        ]
        self._send("post", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def click(self, x: float, y: float) -> None:
        """Click at a place of the window, in CSS pixels."""
        move = {"type": "pointerMove", "duration": 0, "x": round(x), "y": round(y)}
        press = [{"type": kind, "button": 0} for kind in ("pointerDown", "pointerUp")]
        pointer = {"type": "pointer", "id": "mouse", "actions": [move, *press]}
        self._send("post", "/actions", {"actions": [pointer]})

    def screenshot(self, path: Path) -> None:
        """Write the window as a PNG file."""
        path.write_bytes(base64.b64decode(self._send("get", "/screenshot")))

    def wait(self, ready: Callable[[], Any], seconds: float = 60) -> Any:
        """Return the first true value of `ready`."""
        end = time.monotonic() + seconds
        while not (value := ready()):
            assert time.monotonic() < end, "it never happened"
            time.sleep(0.05)
        return value

    def close(self) -> None:
        """End both programs."""
        try:
            self._send("delete", "")
        finally:
            self._process.terminate()
            self._process.wait(30)
            if self._process.stdout is not None:
                self._process.stdout.close()

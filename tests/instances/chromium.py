"""A Chromium without a window, driven over chromedriver's own HTTP (W3C WebDriver)."""

import base64
import json
import subprocess
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.instances.components import program

_FLAGS = (
    "headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
    "disable-component-update", "disable-sync", "disable-dev-shm-usage", "hide-scrollbars",
)  # fmt: skip
_TIMEOUT_S = 120


class Chromium:
    """A browser with a profile of its own in `folder`, which is empty; `close` ends it."""

    def __init__(self, folder: Path) -> None:
        self._driver = subprocess.Popen(
            [program("chromedriver"), "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            self._address = f"http://127.0.0.1:{self._port()}"
            wanted = {
                "browserName": "chrome",
                "goog:chromeOptions": {"binary": program("chromium"), "args": [*_FLAGS, f"user-data-dir={folder}"]},
                "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
            }
            made = self._send("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
            self._session = f"/session/{made['sessionId']}"
        except BaseException:
            self._end_driver()
            raise

    def _port(self) -> str:
        assert self._driver.stdout is not None
        for line in self._driver.stdout:
            if "started successfully on port" in line:
                return line.rstrip().rstrip(".").rpartition(" ")[2]
        raise RuntimeError("chromedriver has ended")

    def close(self) -> None:
        """End browser and driver."""
        try:
            self._send("DELETE", self._session)
        finally:
            self._end_driver()

    def _end_driver(self) -> None:
        self._driver.terminate()
        self._driver.wait(_TIMEOUT_S)
        assert self._driver.stdout is not None
        self._driver.stdout.close()

    def open(self, url: str) -> None:
        """Load a page, whole; what was logged before it is forgotten."""
        self._post("url", url="about:blank")
        for kind in ("browser", "performance"):
            self.log(kind)
        self._post("url", url=url)

    def run(self, script: str, *arguments: object) -> Any:
        """What a script gives, as the body of a function."""
        return self._post("execute/sync", script=script, args=arguments)

    def devtools(self, command: str, **parameters: object) -> Any:
        """The answer to a command of the DevTools protocol."""
        return self._post("goog/cdp/execute", cmd=command, params=parameters)

    def look(self, width: int, scheme: str = "light", media: str = "") -> None:
        """Be a screen so wide whose owner prefers this colour scheme, or paper."""
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.devtools("Emulation.setDeviceMetricsOverride", **metrics)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.devtools("Emulation.setEmulatedMedia", media=media, features=features)

    def type(self, keys: str) -> None:
        """Type keys, as WebDriver writes them, into what has the focus."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self._post("actions", actions=[{"type": "key", "id": "keys", "actions": actions}])

    def click(self, script: str, *arguments: object) -> None:
        """Click on the element that a script gives, as a mouse does."""
        element = self.run(script, *arguments)
        self._post(f"element/{next(iter(element.values()))}/click")

    def log(self, kind: str) -> list[Any]:
        """What the browser has logged since the last call: `browser` or `performance`."""
        found: list[Any] = self._post("se/log", type=kind)
        return found

    def requests(self) -> list[str]:
        """The addresses that were asked since the last call."""
        messages = [json.loads(entry["message"])["message"] for entry in self.log("performance")]
        return [each["params"]["request"]["url"] for each in messages if each["method"] == "Network.requestWillBeSent"]

    def picture(self, file: Path) -> None:
        """Write a PNG of the whole page."""
        size = self.devtools("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        made = self.devtools("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        file.write_bytes(base64.b64decode(made["data"]))

    def _post(self, path: str, **body: object) -> Any:
        return self._send("POST", f"{self._session}/{path}", body)

    def _send(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self._address + path, data, {"Content-Type": "application/json"}, method=method
        )
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
            return json.load(answer)["value"]

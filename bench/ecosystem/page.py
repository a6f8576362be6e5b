"""The page of gptvq serve in headless Chromium, which is told over a pipe to type, and to read what appears."""
import json
import os
import shutil
import subprocess
import tempfile
import time

from common import note, options, require, row, serving


class Browser:
    def __init__(self, program):
        to_read, self.to = os.pipe()
        self.back, back_write = os.pipe()
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        command = [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                   "--disable-background-networking", f"--user-data-dir={self.profile.name}", "--remote-debugging-pipe"]

        def pipes():  # the browser reads from 3 and writes to 4
            low, high = os.dup(to_read), os.dup(back_write)
            os.dup2(low, 3)
            os.dup2(high, 4)

        self.process = subprocess.Popen(command, close_fds=False, preexec_fn=pipes, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_read)
        os.close(back_write)
        self.number, self.held, self.session = 0, b"", None

    def call(self, method, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self.held:
                piece = os.read(self.back, 1 << 16)
                require(piece, "the browser has gone")
                self.held += piece
            one, self.held = self.held.split(b"\0", 1)
            reply = json.loads(one)
            if reply.get("id") == self.number:
                require("error" not in reply, f"{method}: {reply.get('error')}")
                return reply["result"]

    def open(self, url):
        target = self.call("Target.createTarget", url=url)["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def run(self, script):
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        require("exceptionDetails" not in result, f"{script}: {result.get('exceptionDetails')}")
        return result["result"].get("value")

    def until(self, script, what, seconds=60):
        end = time.monotonic() + seconds
        while not self.run(script):
            require(time.monotonic() < end, what)
            time.sleep(0.05)

    def close(self):
        self.process.terminate()
        self.process.wait(30)
        self.profile.cleanup()


def say(browser, words):
    browser.run(f"get('text').value = {json.dumps(words)}; get('form').requestSubmit()")


def main():
    o = options()
    program = shutil.which("chromium")
    if program is None:
        return note("ecosystem: no chromium: the page is left out")
    passed = 0
    with serving(o, "--api-key", "secret", "--ctx", "512") as url:
        browser = Browser(program)
        try:
            browser.open(url + "/")
            browser.until("typeof look === 'function' && document.readyState === 'complete'", "the page is not there")
            browser.until("note.textContent.includes('key')", "the page does not say that a key is missing")
            passed += 1
            browser.run("get('key').value = 'secret'; get('key').dispatchEvent(new Event('change')); get('temperature').value = 0; get('max_tokens').value = 24")
            browser.until("document.title !== 'gptvq'", "the model's name does not appear")
            passed += 1
            say(browser, "Once upon a time")
            browser.until("!running && messages.length === 2", "no answer")
            shown = browser.run("[...talk.children].map(a => a.className + ':' + a.textContent)")
            require(len(shown) == 2 and shown[0] == "user:Once upon a time" and len(shown[1]) > len("assistant:") + 4, f"what is shown: {shown}")
            require("tokens of prompt" in browser.run("note.textContent"), "the speed is not shown")
            passed += 1
            browser.run("get('max_tokens').value = 450")
            say(browser, "Tell me a long story")
            browser.until("talk.lastChild.textContent.length > 10", "no second answer")
            browser.run("if (running) get('form').requestSubmit()")  # Stop
            browser.until("!running && send.textContent === 'Send'", "the answer does not stop")
            passed += 1
            browser.run("get('fresh').click()")
            require(browser.run("talk.children.length === 0 && messages.length === 0"), "New does not begin anew")
            passed += 1
            requests = browser.run("performance.getEntriesByType('resource').map(r => r.name)")
            require(all(r.startswith(url) or r.startswith("data:") for r in requests), f"the page asks elsewhere: {requests}")
            passed += 1
        finally:
            browser.close()
    version = subprocess.run([program, "--version"], capture_output=True, text=True).stdout.split()[1]
    row("chromium " + version, "the page: key; name; chat; stop; new; no other address", f"{passed} of {passed} pass")


if __name__ == "__main__":
    main()

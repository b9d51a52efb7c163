"""`ppcls serve` as a process of its own, on a port of its own."""

import os
import queue
import re
import subprocess
import sys
import threading

import pages

SECONDS = 300  # for a start on a machine that does other things, too
QUICK = ("--port", "0", "--threads", "1", "--max-batch", "2")  # little is measured at the start
READY = re.compile(r"ready: (https?)://(\S+):(\d+),")


class RunningService:
    """Entered, it answers; left, it has ended.

    Attributes:
        port: that it listens on.
        said: its lines, of both streams, as far as they have been read.
    """

    def __init__(self, *words, folder, python=(sys.executable, "-m", "ppcls"), quick=QUICK, **env):
        own = os.environ | {"PYTHONPATH": str(pages.ROOT), "PPCLS_HOME": str(folder / "home")}
        command = [*python, "serve", *map(str, words), *quick]
        # None takes a variable out.
        own = {name: value for name, value in (own | env).items() if value is not None}
        self.process = subprocess.Popen(
            command, cwd=folder, env=own, text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.said = []
        self.lines = queue.Queue()
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def __enter__(self):
        try:
            while True:
                line = self.lines.get(timeout=SECONDS)
                assert line is not None, "".join(self.said)
                self.said.append(line)
                found = READY.match(line)
                if found:
                    self.port = int(found[3])
                    self.address = f"{found[1]}://127.0.0.1:{self.port}"
                    return self
        except BaseException:
            self.process.kill()
            raise

    def end(self):
        """SIGTERM; the exit code."""
        self.process.terminate()
        code = self.process.wait(SECONDS)
        self.reader.join()
        while (line := self.lines.get()) is not None:
            self.said.append(line)
        self.lines.put(None)
        return code

    def __exit__(self, *exception):
        if self.process.poll() is None:
            self.end()
        self.process.stdout.close()

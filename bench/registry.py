"""A registry on loopback for a run: Debian's docker-registry."""
import pathlib, shutil, socket, subprocess, time, urllib.request

CONFIG = """version: 0.1
log: {level: error}
storage: {filesystem: {rootdirectory: %s}}
http: {addr: %s}
"""


class Registry:
    """Has `address` (host:port) while it runs; None if the program is not installed."""

    def __init__(self, work: pathlib.Path):
        self.address, self.process = None, None
        if not shutil.which("docker-registry"):
            return
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = "127.0.0.1:%d" % free.getsockname()[1]
        config = work / "registry.yml"
        config.write_text(CONFIG % (work / "registry", address))
        self.process = subprocess.Popen(["docker-registry", "serve", config],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(100):
            try:
                urllib.request.urlopen("http://%s/v2/" % address, timeout=1).close()
                self.address = address
                return
            except OSError:
                time.sleep(0.1)
        self.close()

    def close(self):
        if self.process:
            self.process.terminate()
            self.process.wait()
            self.process = None

"""The builders that are compared, each with a state of its own in the work folder."""
import os, pathlib, subprocess, time


class Failed(Exception):
    """A builder cannot do a workload, or did it wrong."""


def proportional_set(roots):
    """KiB that some processes and all below them take; what they share counts once (PSS)."""
    children, total = {}, 0
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                with open("/proc/%s/stat" % entry.name) as stat:
                    parent = int(stat.read().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry.name))
    todo = list(roots)
    while todo:
        pid = todo.pop()
        todo += children.get(pid, [])
        try:
            with open("/proc/%d/smaps_rollup" % pid) as facts:
                total += sum(int(line.split()[1]) for line in facts if line.startswith("Pss:"))
        except OSError:  # has ended
            continue
    return total


class Builder:
    """A command-line builder. While `watched`, `peak` grows to the most memory, in KiB, that all its
    processes had together."""

    daemons = ()

    def __init__(self, work, env=None):
        self.work, self.env = work, dict(os.environ, **(env or {}))
        self.watched, self.peak, self.states = False, 0, 0

    def run(self, command):
        with open(self.work / "errors", "w+b") as errors:
            child = subprocess.Popen(command, env=self.env, stdout=subprocess.DEVNULL, stderr=errors)
            while self.watched and child.poll() is None:
                self.peak = max(self.peak, proportional_set([child.pid, *self.daemons]))
                time.sleep(0.005)
            if child.wait():
                errors.seek(0)
                told = errors.read().decode(errors="replace").strip()[-300:]
                raise Failed("%s: %s" % (" ".join(map(str, command[:6])), told))

    def new_state(self):
        """An empty folder. Old ones stay to the end: ext4 is slow to make files where it has just
        removed many, and that would be measured."""
        self.states += 1
        state = self.work / ("%s-%d" % (self.name, self.states))
        state.mkdir()
        return state

    def close(self):
        pass


class Rbc(Builder):
    name = "rbc"

    def __init__(self, program, work):
        super().__init__(work)
        self.program = str(pathlib.Path(program).resolve())

    def reset(self, base):
        self.env["RBC_ROOT"] = str(self.new_state())
        self.run([self.program, "load", "--input", str(base)])

    def build(self, context, export=None, registry=None):
        output = ["-t", "bench:latest"]
        if export:
            output = ["-o", "type=oci,dest=%s,compression=%s" % (self.work / "out.tar", export)]
        self.run([self.program, "build", "--progress", "quiet", *output, str(context)])


class Buildah(Builder):
    name = "buildah"

    def reset(self, base):
        state = self.new_state()
        self.base = ["buildah", "--root", str(state / "root"), "--runroot", str(state / "run")]
        # buildah names an archive's image by its annotation.
        self.run([*self.base, "pull", "-q", "oci-archive:" + str(base)])

    def build(self, context, export=None, registry=None):
        # Of its kinds of isolation, chroot is the quickest.
        pull = ["--pull", "--tls-verify=false"] if registry else ["--pull-never"]
        self.run([*self.base, "bud", "--isolation", "chroot", "--layers", "--jobs", "8", *pull,
                  "-t", "bench", str(context)])
        if export:
            (self.work / "out.tar").unlink(missing_ok=True)
            self.run([*self.base, "push", "--compression-format", export, "bench",
                      "oci-archive:%s" % (self.work / "out.tar")])

    def close(self):
        # What it mounted it has to unmount.
        for state in sorted(self.work.glob(self.name + "-*")):
            base = ["buildah", "--root", str(state / "root"), "--runroot", str(state / "run")]
            subprocess.run([*base, "rmi", "--all", "--force"], capture_output=True)


class BuildKit(Builder):
    """The BuildKit of a docker daemon that is started for each new state."""

    name = "BuildKit"
    # The client of the same package: a newer one wants a plug-in.
    client = "/usr/bin/docker"

    def __init__(self, work, push_to):
        super().__init__(work, {"DOCKER_BUILDKIT": "1"})
        self.push_to, self.daemon = push_to, None
        # Finds out now whether it starts at all.
        self.start()

    def start(self):
        self.close()
        state = self.new_state()
        self.env["DOCKER_HOST"] = "unix://%s" % (state / "socket")
        with open(self.work / "dockerd.log", "wb") as log:
            self.daemon = subprocess.Popen(
                ["dockerd", "--data-root", state / "data", "--exec-root", state / "exec", "--host",
                 self.env["DOCKER_HOST"], "--pidfile", state / "pid", "--bridge", "none",
                 "--iptables=false", "--ip6tables=false"], stdout=log, stderr=log)
        # containerd is a child of it.
        self.daemons = (self.daemon.pid,)
        for _ in range(300):
            if subprocess.run([self.client, "version"], env=self.env, capture_output=True).returncode == 0:
                return
            time.sleep(0.2)
        self.close()
        raise Failed("dockerd does not start: " + (self.work / "dockerd.log").read_text()[-300:])

    def reset(self, base):
        self.start()
        # What `docker save` wrote lies beside the OCI archive.
        self.run([self.client, "load", "-q", "-i", str(base).replace(".oci.tar", ".docker.tar")])

    def build(self, context, export=None, registry=None):
        if export == "zstd":
            raise Failed("this version has no zstd")
        if export and not self.push_to:
            raise Failed("this version writes no compressed archives, and there is no registry")
        tag = self.push_to + "/bench:%d" % self.states if export else "bench"
        network = "host" if registry else "none"
        self.run([self.client, "build", "--quiet", "--network", network, "-t", tag, str(context)])
        if export:
            # It writes no compressed archives; a registry on loopback takes the layers.
            self.run([self.client, "push", "--quiet", tag])

    def close(self):
        if self.daemon:
            self.daemon.terminate()
            self.daemon.wait()
            self.daemon = None

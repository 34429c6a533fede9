"""The builders that are compared, each with a state of its own in the work folder."""
import os, pathlib, shutil, subprocess, time


class Failed(Exception):
    """A builder cannot do a workload, or did it wrong."""


class Builder:
    """A command-line builder. `peak` is the largest resident set that a build of it had, in KiB."""

    def __init__(self, env=None):
        self.env = dict(os.environ, **(env or {}))
        self.peak = 0

    def run(self, command):
        with subprocess.Popen(command, env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as child:
            errors = child.stderr.read()
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
        self.peak = max(self.peak, usage.ru_maxrss)
        if child.returncode:
            raise Failed("%s: %s" % (" ".join(map(str, command[:6])), errors.decode(errors="replace").strip()[-300:]))

    def begin(self):
        """Before a timed build."""

    def end(self):
        """After a timed build."""

    def close(self):
        pass


class Rbc(Builder):
    name = "rbc"

    def __init__(self, program, work):
        super().__init__({"RBC_ROOT": str(work / "rbc-state")})
        self.program, self.work = str(pathlib.Path(program).resolve()), work

    def reset(self, base):
        shutil.rmtree(self.work / "rbc-state", ignore_errors=True)
        self.run([self.program, "load", "--input", str(base)])

    def build(self, context, export):
        output = ["-t", "bench:latest"]
        if export:
            output = ["-o", "type=oci,dest=%s,compression=%s" % (self.work / "out.tar", export)]
        self.run([self.program, "build", "--progress", "quiet", *output, str(context)])


class Buildah(Builder):
    name = "buildah"

    def __init__(self, work):
        super().__init__()
        self.work = work
        self.base = ["buildah", "--root", str(work / "buildah-state"), "--runroot", str(work / "buildah-run")]

    def reset(self, base):
        if (self.work / "buildah-state").exists():
            subprocess.run([*self.base, "rmi", "--all", "--force"], capture_output=True)
        # buildah names an archive's image by its annotation.
        self.run([*self.base, "pull", "-q", "oci-archive:" + str(base)])

    def build(self, context, export):
        # Of its kinds of isolation, chroot is the quickest.
        self.run([*self.base, "bud", "--isolation", "chroot", "--layers", "--pull-never", "-t", "bench", str(context)])
        if export:
            (self.work / "out.tar").unlink(missing_ok=True)
            self.run([*self.base, "push", "--compression-format", export, "bench", "oci-archive:%s" % (self.work / "out.tar")])

    def close(self):
        subprocess.run([*self.base, "rmi", "--all", "--force"], capture_output=True)


class BuildKit(Builder):
    """The BuildKit of a docker daemon that is started for this run alone."""

    name = "BuildKit"

    def __init__(self, work):
        super().__init__({"DOCKER_BUILDKIT": "1", "DOCKER_HOST": "unix://%s" % (work / "docker.sock")})
        self.log = open(work / "dockerd.log", "wb")
        self.daemon = subprocess.Popen(
            ["dockerd", "--data-root", work / "docker", "--exec-root", work / "docker-exec", "--host",
             "unix://%s" % (work / "docker.sock"), "--pidfile", work / "docker.pid", "--bridge", "none",
             "--iptables=false", "--ip6tables=false"],
            stdout=self.log, stderr=self.log)
        # The client of the same package: a newer one wants a plug-in.
        self.client = "/usr/bin/docker"
        for _ in range(100):
            if subprocess.run([self.client, "version"], env=self.env, capture_output=True).returncode == 0:
                return
            time.sleep(0.2)
        self.close()
        raise Failed("dockerd does not start: " + (work / "dockerd.log").read_text()[-300:])

    def reset(self, base):
        # What `docker save` wrote lies beside the OCI archive.
        self.run([self.client, "builder", "prune", "--all", "--force"])
        self.run([self.client, "image", "prune", "--all", "--force"])
        self.run([self.client, "load", "-q", "-i", str(base).replace(".oci.tar", ".docker.tar")])

    def build(self, context, export):
        if export:
            raise Failed("this version writes no compressed archives")
        self.run([self.client, "build", "--quiet", "--network", "none", "-t", "bench", str(context)])

    def begin(self):
        pathlib.Path("/proc/%d/clear_refs" % self.daemon.pid).write_text("5")

    def end(self):
        for line in pathlib.Path("/proc/%d/status" % self.daemon.pid).read_text().splitlines():
            if line.startswith("VmHWM:"):
                self.peak = max(self.peak, int(line.split()[1]))

    def close(self):
        self.daemon.terminate()
        self.daemon.wait()
        self.log.close()

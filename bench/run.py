#!/usr/bin/env python3
"""Times rbc beside installed peers in one run and prints ratios of medians.

    bench/run.py [--rbc PATH] [--runs N] [--markdown FILE] [WORKLOAD ...]

Workloads:
    steps     50 RUN steps of `true`, from an empty cache
    warm      nothing changed, a context of 20,000 files
    copy      cold COPY of 20,000 files
    parallel  two independent stages of `sleep 2`

The peer is Debian's `buildah bud --layers`; it is skipped, saying so, where it is absent. Every
measurement starts from the same state: a fresh copy of the work folder, base image loaded. Ratios
above 1 say how many times longer the peer takes. Absolute times are printed only to judge the
expectations: they belong to the machine, not to the program.
"""
import argparse, os, pathlib, shutil, statistics, subprocess, sys, tempfile, time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "conformance"))
import images  # noqa: E402  (the maker of the base image)


class Rbc:
    name = "rbc"

    def __init__(self, program, work):
        self.program, self.root = program, work / "rbc-state"
        self.env = dict(os.environ, RBC_ROOT=str(self.root))

    def reset(self, base):
        shutil.rmtree(self.root, ignore_errors=True)
        self.quiet([self.program, "load", "--input", str(base)])

    def quiet(self, command):
        subprocess.run(command, env=self.env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def build(self, context):
        self.quiet([self.program, "build", "--progress", "quiet", "-t", "bench:latest", str(context)])


class Buildah:
    name = "buildah"

    def __init__(self, work):
        self.root = work / "buildah-state"
        self.base = ["buildah", "--root", str(self.root), "--runroot", str(work / "buildah-run")]
        # Without a container runtime that this kernel's cgroups please, chroot is the quickest.
        self.isolation = ["--isolation", "chroot"]

    def reset(self, base):
        if self.root.exists():
            subprocess.run([*self.base, "rmi", "--all", "--force"], capture_output=True)
        self.quiet([*self.base, "pull", "-q", "oci-archive:" + str(base)])

    def quiet(self, command):
        p = subprocess.run(command, capture_output=True, text=True)
        if p.returncode:
            raise RuntimeError("%s: %s" % (" ".join(command[:6]), p.stderr.strip()[-300:]))

    def build(self, context):
        self.quiet([*self.base, "bud", *self.isolation, "--layers", "--pull-never", "-t", "bench", str(context)])


def tree(folder, files):
    for n in range(files):
        path = folder / "src" / ("d%03d" % (n // 100)) / ("f%05d.txt" % n)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("file %d\n" % n * 20)


def steps(folder):
    (folder / "Dockerfile").write_text("FROM busybox\n" + "".join(
        "RUN true # %d\n" % n for n in range(50)))


def copy(folder):
    tree(folder, 20000)
    (folder / "Dockerfile").write_text("FROM busybox\nCOPY src /src\n")


def parallel(folder):
    (folder / "Dockerfile").write_text(
        "FROM busybox AS a\nRUN sleep 2; echo a > /a\nFROM busybox AS b\nRUN sleep 2; echo b > /b\n"
        "FROM busybox\nCOPY --from=a /a /a\nCOPY --from=b /b /b\n")


WORKLOADS = {"steps": (steps, False), "warm": (copy, True), "copy": (copy, False), "parallel": (parallel, False)}


def measure(builder, base, context, warm, runs):
    times = []
    for run in range(runs):
        if not warm or run == 0:
            builder.reset(base)
        if warm and run == 0:
            builder.build(context)
            builder.build(context)
        begin = time.monotonic()
        builder.build(context)
        times.append(time.monotonic() - begin)
    return times


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--rbc", default="target/release/rbc")
    ap.add_argument("--runs", type=int, default=5)
    ap.add_argument("--markdown", help="also write the table to this file")
    ap.add_argument("workloads", nargs="*", metavar="WORKLOAD")
    opt = ap.parse_args()
    lines = ["| workload | rbc median (spread) | peer median (spread) | peer / rbc |", "| --- | --- | --- | --- |"]
    show = lambda t: "%.3f s (%.3f–%.3f)" % (statistics.median(t), min(t), max(t))
    with tempfile.TemporaryDirectory() as tmp:
        work = pathlib.Path(tmp)
        images.make(work / "images")
        # buildah names an archive's image by its annotation.
        base = work / "images" / "busybox.oci.tar"
        peers = []
        if shutil.which("buildah"):
            peers.append(Buildah(work))
        else:
            print("buildah is not installed: skipped", file=sys.stderr)
        for name in opt.workloads or WORKLOADS:
            lay_out, warm = WORKLOADS[name]
            context = work / name
            context.mkdir()
            lay_out(context)
            ours = measure(Rbc(str(pathlib.Path(opt.rbc).resolve()), work), base, context, warm, opt.runs)
            if not peers:
                lines.append("| %s | %s | – | – |" % (name, show(ours)))
            for peer in peers:
                try:
                    theirs = measure(peer, base, context, warm, max(1, opt.runs // 2))
                except RuntimeError as e:
                    print("%s failed on %s, skipped: %s" % (peer.name, name, e), file=sys.stderr)
                    lines.append("| %s | %s | failed | – |" % (name, show(ours)))
                    continue
                ratio = statistics.median(theirs) / statistics.median(ours)
                lines.append("| %s | %s | %s | %.1f |" % (name, show(ours), show(theirs), ratio))
            print(lines[-1], file=sys.stderr)
    text = "\n".join(lines) + "\n"
    print(text, end="")
    if opt.markdown:
        pathlib.Path(opt.markdown).write_text(text)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Times rbc beside installed peers in one run and prints ratios of medians.

    bench/run.py [--rbc PATH] [--runs N] [--quick] [--work DIR]
                 [--markdown FILE] [--svg FILE] [WORKLOAD ...]

Workloads are in workloads.py, builders in builders.py: Debian's buildah (`bud --layers`) and the
BuildKit in Debian's docker.io, whose daemon is started for the run with its own state (root). What is
not installed is skipped, saying so. The builders take turns, so that a busy moment of the machine
hits all. A ratio above 1 says how many times longer the peer takes. Absolute times are printed only to
judge the spread: they belong to the machine, not to the program. Rows of memory compare the most that
all processes of a builder had together (PSS, sampled) in one more build that is not timed; of BuildKit
these are dockerd, containerd and the client.
"""
import argparse, pathlib, shutil, signal, statistics, sys, tempfile, time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "conformance"))
import images  # noqa: E402  (the maker of the base image)
from builders import BuildKit, Buildah, Failed, Rbc  # noqa: E402
from chart import chart  # noqa: E402
from registry import Registry  # noqa: E402
from workloads import all_of, lay_out_large_image  # noqa: E402


def timed(builder, workload, base, context, run, watched):
    """Seconds of one build. The builder's `peak` is that of this build if it is watched."""
    if workload.cold or run == 0 or workload.export:
        builder.reset(base)
    if not workload.cold and (run == 0 or workload.export):
        builder.build(context)
    if workload.edit:
        workload.edit(context, run)
    elif not workload.cold and not workload.export:
        builder.build(context)
    builder.watched, builder.peak = watched, 0
    try:
        begin = time.monotonic()
        builder.build(context, workload.export, workload.registry)
        return time.monotonic() - begin
    finally:
        builder.watched = False


def measure(builders, workload, base, work, runs):
    """Seconds of each run by builder, and its peak memory in KiB if it was watched; no entry for one
    that cannot do it."""
    times, peaks = {builder.name: [] for builder in builders}, {}
    context = work / workload.name
    context.mkdir()
    workload.lay_out(context)
    for run in range(runs + workload.memory):
        for builder in builders:
            if builder.name not in times:
                continue
            try:
                watched = run == runs
                seconds = timed(builder, workload, base, context, run, watched)
                if watched:
                    peaks[builder.name] = builder.peak
                else:
                    times[builder.name].append(seconds)
            except Failed as e:
                print("%s: %s is skipped: %s" % (workload.name, builder.name, e), file=sys.stderr)
                del times[builder.name]
    shutil.rmtree(context)
    return times, peaks


def begin(work, rbc, registry):
    """The builders that are there."""
    builders = [Rbc(rbc, work)]
    for program, make in (("buildah", lambda: Buildah(work)),
                          ("dockerd", lambda: BuildKit(work, registry.address))):
        try:
            if not shutil.which(program):
                raise Failed("%s is not installed" % program)
            builders.append(make())
        except Failed as e:
            print("%s is skipped: %s" % (program, e), file=sys.stderr)
    return builders


def push_large_image(ours, work, registry, megabytes):
    """Puts an image of some megabytes into the registry."""
    folder = work / "large"
    lay_out_large_image(folder, megabytes)
    name = registry.address + "/large:latest"
    ours.run([ours.program, "build", "--progress", "quiet", "-t", name, str(folder)])
    ours.run([ours.program, "push", name])
    shutil.rmtree(folder)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--rbc", default="target/release/rbc")
    ap.add_argument("--runs", type=int, default=5)
    ap.add_argument("--quick", action="store_true", help="2,000 files, 64 MB to export and 30 MB to pull in "
                    "place of 20,000, 1,024 and 300")
    ap.add_argument("--work", help="folder for what the run needs, removed afterwards (20 GB on a disk)")
    ap.add_argument("--markdown", help="also write the table to this file")
    ap.add_argument("--svg", help="write a plot of the ratios to this file")
    ap.add_argument("workloads", nargs="*", metavar="WORKLOAD")
    opt = ap.parse_args()
    # Daemons and mounts are cleaned up then too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    files, megabytes, pull_megabytes = (2000, 64, 30) if opt.quick else (20000, 1024, 300)
    unknown = set(opt.workloads) - {w.name for w in all_of(0, 0, 0, "any")}
    if unknown:
        ap.error("no such workload: " + ", ".join(sorted(unknown)))
    with tempfile.TemporaryDirectory(dir=opt.work) as tmp:
        work = pathlib.Path(tmp)
        images.make(work / "images")
        base = work / "images" / "busybox.oci.tar"
        registry = Registry(work)
        if not registry.address:
            print("pulling and BuildKit's export are skipped: no docker-registry", file=sys.stderr)
        workloads = all_of(files, megabytes, pull_megabytes, registry.address)
        builders = begin(work, opt.rbc, registry)
        try:
            ours = builders[0]
            ours.reset(base)
            ours.run([ours.program, "save", "--output", str(work / "images" / "busybox.docker.tar"), "busybox"])
            rows = []
            for workload in workloads:
                if opt.workloads and workload.name not in opt.workloads:
                    continue
                if workload.registry:
                    push_large_image(ours, work, registry, pull_megabytes)
                times, peaks = measure(builders, workload, base, work, opt.runs)
                rows.append(Row(workload.says, times, lambda t: "%.3f s" % t))
                if peaks:
                    in_mb = {name: [kib / 1024] for name, kib in peaks.items()}
                    rows.append(Row("peak memory: " + workload.says, in_mb, lambda m: "%.0f MB" % m))
                for row in rows[-2:] if peaks else rows[-1:]:
                    print(row.text(builders), file=sys.stderr, flush=True)
        finally:
            for builder in builders:
                builder.close()
            registry.close()
    names = [builder.name for builder in builders]
    text = "| workload | %s |\n|%s\n" % (" | ".join(names), " --- |" * (len(names) + 1))
    text += "".join(row.text(builders) + "\n" for row in rows)
    print(text, end="")
    if opt.markdown:
        pathlib.Path(opt.markdown).write_text(text)
    if opt.svg:
        bars = [(row.says.replace("`", ""), [(b.name, row.ratio(b, builders[0])) for b in builders[1:]]) for row in rows]
        pathlib.Path(opt.svg).write_text(chart(bars))


class Row:
    """A line of the table: what was measured, and the values by builder."""

    def __init__(self, says, values, show):
        self.says, self.values, self.show = says, values, show

    def ratio(self, peer, ours):
        if not self.values.get(peer.name) or not self.values.get(ours.name):
            return None
        return statistics.median(self.values[peer.name]) / statistics.median(self.values[ours.name])

    def text(self, builders):
        def cell(builder):
            values = self.values.get(builder.name)
            if not values:
                return "–"
            spread = self.show(statistics.median(values))
            if len(values) > 1:
                spread += " (%s–%s)" % (self.show(min(values)).split()[0], self.show(max(values)).split()[0])
            of = self.ratio(builder, builders[0])
            return spread if of is None or builder is builders[0] else "**%.1f ×** %s" % (of, spread)
        return "| %s | %s |" % (self.says, " | ".join(cell(builder) for builder in builders))


if __name__ == "__main__":
    main()
